package program

import "math/rand/v2"

// Generate makes a program of so many steps from a seed. Steps that are not wanted are left out. The
// same seed makes the same program.
func Generate(seed uint64, steps int, wanted func(Step) bool) *Program {
	g := newGenerator(seed)
	p := &Program{Seed: seed, Probe: g.pick(1, 1, 1, 5, 1000)}
	for tries := 0; len(p.Steps) < steps && tries < 100*steps; tries++ {
		s := g.step()
		if wanted(s) {
			p.Steps = append(p.Steps, s)
		}
	}
	return p
}

// A generator holds what is known of a program so far without running it.
type generator struct {
	*rand.Rand
	weights []int // of Ops
	total   int

	clusters []int     // first pages of the ranges in which most addresses are
	recent   []Address // where something was done before
	slots    int       // how many were given out
	children int       // how many were forked
	alive    []Actor
	segments int
	contexts int
}

// clusterPages is the length of a cluster. Two of three lie across the borders of huge pages.
const clusterPages = 16

// Clusters are the first pages of the ranges of the arena that programs use most.
var Clusters = [...]int{0, HugeSize/PageSize - clusterPages/2, 2*HugeSize/PageSize - clusterPages/2}

// Interesting are the pages of the arena that are worth looking at after each step.
func Interesting() []int {
	var pages []int
	for _, first := range Clusters {
		for i := range clusterPages {
			pages = append(pages, first+i)
		}
	}
	return pages
}

func newGenerator(seed uint64) *generator {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0x6d6d))}
	// Not every program does everything: those which do a few things do them to each other.
	for _, o := range Ops {
		w := o.Weight * g.pick(0, 1, 1, 4)
		g.weights = append(g.weights, w)
		g.total += w
	}
	if g.total == 0 {
		return newGenerator(seed + 1<<63)
	}
	g.clusters = append(g.clusters, Clusters[:]...)
	home := Clusters[g.IntN(len(Clusters))]
	for range 6 {
		g.clusters = append(g.clusters, home)
	}
	g.alive = []Actor{Main}
	if g.chance(50) {
		g.alive = append(g.alive, Main, Main, Thread1, Thread2)
	}
	return g
}

func (g *generator) pick(values ...int) int { return values[g.IntN(len(values))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) step() Step {
	s := Step{Actor: g.alive[g.IntN(len(g.alive))], Op: g.op()}
	s.Args = make([]int64, len(s.Op.Args))
	for i, kind := range s.Op.Args {
		s.Args[i] = g.arg(kind)
	}
	if special := specials[s.Op]; special != nil {
		special(g, &s)
	}
	g.remember(s)
	return s
}

func (g *generator) op() *Op {
	n := g.IntN(g.total)
	for i, o := range Ops {
		if n -= g.weights[i]; n < 0 {
			return o
		}
	}
	return Ops[0]
}

// remember keeps the borders of what a step did, so that later ones meet them.
func (g *generator) remember(s Step) {
	for i, kind := range s.Op.Args {
		start := Address(s.Args[i])
		if kind != KindAddr || start.Region() == Absolute {
			continue
		}
		g.recent = append(g.recent, start)
		if i+1 < len(s.Args) && s.Op.Args[i+1] == KindLen && s.Args[i+1] > 0 && s.Args[i+1] <= 2*HugeSize {
			g.recent = append(g.recent, start+Address(s.Args[i+1]))
		}
	}
	const kept = 24
	g.recent = g.recent[max(0, len(g.recent)-kept):]
}

func (g *generator) arg(kind *Kind) int64 {
	switch kind {
	case KindAddr:
		return int64(g.address())
	case KindLen:
		return g.length()
	case KindOffset:
		return g.offset()
	case KindNum:
		return g.number()
	case KindHandle:
		return int64(g.pick(int(NoFile), int(Disk), int(DiskRead), int(Tmpfs), int(Memfd), int(Sealed), int(Zero), int(PipeRead), int(PipeWrite)))
	case KindActor:
		return int64(g.alive[g.IntN(len(g.alive))])
	case KindSlot:
		return int64(g.IntN(Slots))
	case KindSegment:
		return int64(g.IntN(max(g.segments, 1)))
	case KindContext:
		return int64(g.IntN(max(g.contexts, 1)))
	case KindProt:
		return g.prot()
	}
	if !kind.flags {
		return kind.names[g.IntN(len(kind.names))].value
	}
	value := int64(0)
	for _, n := range kind.names {
		if g.chance(30) {
			value |= n.value
		}
	}
	return value
}

func (g *generator) prot() int64 {
	return int64(g.pick(0, 1, 1, 3, 3, 3, 3, 3, 5, 7, 2))
}

func (g *generator) number() int64 {
	if g.chance(12) {
		return 0xc3 // a function that returns, on x86
	}
	return int64(g.IntN(10))
}

func (g *generator) offset() int64 {
	offset := int64(g.IntN(FilePages+2)) * PageSize
	if g.chance(8) {
		offset += int64(g.pick(1, 8, PageSize-1, PageSize/2))
	}
	return offset
}

func (g *generator) address() Address {
	var a Address
	switch n := g.IntN(100); {
	case n < 50 && len(g.recent) > 0:
		a = g.recent[g.IntN(len(g.recent))]
		if g.chance(30) {
			a += Address(g.pick(-2, -1, 1, 1, 2) * PageSize)
		}
	case n < 88 || n < 94 && g.slots == 0:
		a = Page(g.clusters[g.IntN(len(g.clusters))] + g.IntN(clusterPages))
	case n < 94:
		a = At(FirstSlot+g.IntN(min(g.slots, Slots)), int64(g.pick(0, 0, 0, 1, 2))*PageSize)
	case n < 98:
		a = At(Heap, int64(g.IntN(HeapPages/2))*PageSize)
	default:
		a = Page(g.IntN(ArenaPages))
	}
	if g.chance(3) {
		a += Address(g.pick(1, 8, PageSize/2, PageSize-4, PageSize-1))
	}
	return confine(a)
}

// confine keeps addresses where nothing else is mapped.
func confine(a Address) Address {
	switch limit := int64(ArenaPages+1) * PageSize; a.Region() {
	case Arena:
		return At(Arena, min(max(a.Distance(), -PageSize), limit))
	case Heap:
		return At(Heap, min(max(a.Distance(), 0), (HeapPages-1)*PageSize))
	case Absolute:
		return a
	default:
		return At(a.Region(), max(a.Distance(), 0))
	}
}

func (g *generator) length() int64 {
	const huge = HugeSize / PageSize
	var pages int
	switch n := g.IntN(100); {
	case n < 40:
		pages = 1 + g.IntN(3)
	case n < 88:
		pages = 1 + g.IntN(8)
	case n < 93:
		pages = 1 + g.IntN(clusterPages)
	case n < 97:
		pages = g.pick(huge-1, huge, huge+1, huge+8, 2*huge)
	case n < 98:
		return 0
	default:
		return int64(g.IntN(3*PageSize) + 1)
	}
	return int64(pages) * PageSize
}
