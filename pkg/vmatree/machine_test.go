package vmatree

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
)

// random returns a source for t, and logs the seed: it is shown if t fails.
// VMATREE_SEED repeats a run.
func random(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	if s := os.Getenv("VMATREE_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 0, 64); err != nil {
			t.Fatalf("VMATREE_SEED: %v", err)
		}
	}
	t.Logf("VMATREE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// A machine edits a Txn and a model side by side, as numbers from a source tell
// it.
type machine struct {
	t     testing.TB
	next  func(n uint64) uint64 // a number below n, n > 0
	space uint64                // addresses are up to this one
	short uint64                // length of most ranges
	wild  bool                  // some ranges are long
	alone bool                  // transactions are of BeginAlone

	tree Tree[*span, int]
	x    *Txn[*span, int]
	m    model
	meta int

	committed kept // the current version, without a snapshot, if alone

	versions []kept // that were frozen or committed, the current one last
	keep     func(Snapshot[*span, int], model)
	last     string // what was done last
}

// A kept version is a snapshot and what is in it.
type kept struct {
	s    Snapshot[*span, int]
	m    model
	meta int
}

func newMachine(t testing.TB, space, short uint64, next func(n uint64) uint64) *machine {
	k := &machine{t: t, next: next, space: space, short: short, wild: true}
	k.begin(kept{})
	return k
}

// begin begins a transaction on v, which is made current.
func (k *machine) begin(v kept) {
	k.tree.Publish(v.s)
	k.x, k.m, k.meta = k.tree.Begin(spans{k.t}), v.m.clone(), v.meta
	if k.alone {
		k.x, k.committed = k.tree.BeginAlone(spans{k.t}), v
	}
}

// record keeps s, whose contents are those of the model now.
func (k *machine) record(s Snapshot[*span, int]) kept {
	v := kept{s, k.m.clone(), k.meta}
	if len(k.versions) == 20 {
		k.versions = slices.Delete(k.versions, 0, 1)
	}
	k.versions = append(k.versions, v)
	if k.keep != nil {
		k.keep(s, v.m)
	}
	return v
}

func (k *machine) addr() uint64 {
	a := k.next(k.space)
	if k.next(64) == 0 {
		// The edges of the address space are at the edges of the tests' too.
		a = []uint64{0, 1, k.space - 1, k.space}[k.next(4)]
	}
	// Edges of entries are where it matters.
	if n := len(k.m); n > 0 && k.next(2) == 0 {
		e := k.m[k.next(uint64(n))]
		a = []uint64{e.Start, e.End}[k.next(2)]
	}
	if k.space == ^uint64(0) && k.next(8) == 0 {
		a = ^uint64(0) - k.next(100)
	}
	return a
}

// reach returns a range that begins anywhere and is usually short.
func (k *machine) reach() Range {
	a := k.addr()
	n := k.next(1 + 4*k.short)
	if k.wild && k.next(40) == 0 {
		n = k.next(k.space)
	}
	return Range{a, a + min(n, k.space-a)}
}

// hole returns a free range, if it finds one.
func (k *machine) hole() (Range, bool) {
	gaps := k.m.gaps(Range{0, k.space})
	if len(gaps) == 0 {
		return Range{}, false
	}
	g := gaps[k.next(uint64(len(gaps)))]
	n := 1 + k.next(min(g.Len(), k.short))
	switch k.next(3) {
	case 0: // touches the entry before
		return Range{g.Start, g.Start + n}, true
	case 1: // and the one after
		return Range{g.End - n, g.End}, true
	}
	a := g.Start + k.next(g.Len()-n+1)
	return Range{a, a + n}, true
}

// value returns a value for an entry that starts at addr. Values of neighbours
// often go together.
func (k *machine) value(addr uint64) span {
	v := span{line: int(k.next(2)), off: addr}
	if k.next(4) == 0 {
		v.off = k.next(4)
	}
	return v
}

// step makes one random edit.
func (k *machine) step() {
	switch k.next(18) {
	case 0, 1, 2, 3, 4:
		if r, ok := k.hole(); ok {
			k.last = fmt.Sprintf("Insert(%v)", r)
			v := k.value(r.Start)
			k.x.Insert(r, &v)
			k.m.insert(r, v)
		}
	case 5, 6, 7:
		if r, ok := k.hole(); ok {
			k.last = fmt.Sprintf("InsertMerged(%v)", r)
			v := k.value(r.Start)
			got, want := k.x.InsertMerged(r, &v), k.m.insertMerged(r, v)
			if got.Range != want.Range || *got.Value != want.Value {
				k.t.Fatalf("%s = %v %v, want %v", k.last, got.Range, *got.Value, want)
			}
		}
	case 8, 9:
		k.detach(k.reach())
	case 10:
		r := k.reach()
		k.last = fmt.Sprintf("MergeWithin(%v)", r)
		k.x.MergeWithin(r)
		k.m.mergeWithin(r)
	case 11:
		a := k.addr()
		k.last = fmt.Sprintf("SplitAt(%x)", a)
		k.x.SplitAt(a)
		k.m.splitAt(a)
	case 12:
		k.update()
	case 13:
		k.resize()
	case 14:
		k.last = "SetMeta"
		k.meta++
		k.x.SetMeta(k.meta)
	case 15, 16:
		k.replace()
	default:
		k.turn()
	}
}

func (k *machine) detach(r Range) {
	k.last = fmt.Sprintf("Detach(%v)", r)
	got, want := k.x.Detach(r), k.m.detach(r)
	if got.Len() != len(want) || got.Covered() != want.covered(r) {
		k.t.Fatalf("%s: %d entries with %x bytes, want %v", k.last, got.Len(), got.Covered(), want)
	}
	if all := collect(got.All()); !slices.Equal(all, want) {
		k.t.Fatalf("%s:\n got %v\nwant %v", k.last, all, want)
	}
	for i := range want {
		if e := got.At(i); e.Range != want[i].Range || *e.Value != want[i].Value {
			k.t.Fatalf("%s.At(%d) = %v, want %v", k.last, i, e.Range, want[i].Range)
		}
	}
}

func (k *machine) update() {
	i := k.m.at(k.addr())
	if i == len(k.m) {
		return
	}
	e := &k.m[i]
	a := e.Start + k.next(e.Len())
	k.last = fmt.Sprintf("Update(%x)", a)
	v := k.value(e.Start)
	k.x.Update(a, &v)
	e.Value = v
}

// replace gives an entry, or a part of one, another value.
func (k *machine) replace() {
	i := k.m.at(k.addr())
	if i == len(k.m) {
		return
	}
	e := k.m[i]
	r := e.Range
	if k.next(2) == 0 {
		r.Start += k.next(e.Len())
	}
	if k.next(2) == 0 {
		r.End -= k.next(r.Len())
	}
	k.last = fmt.Sprintf("Replace(%v) in %v", r, e.Range)
	v := k.value(r.Start)
	k.x.Replace(r, &v)
	k.m.splitAt(r.Start)
	k.m.splitAt(r.End)
	k.m[k.m.at(r.Start)].Value = v
	k.m.mergeWithin(r)
}

func (k *machine) resize() {
	i := k.m.at(k.addr())
	if i == len(k.m) {
		return
	}
	e := &k.m[i]
	room := Range{0, k.space}
	if i > 0 {
		room.Start = k.m[i-1].End
	}
	if i+1 < len(k.m) {
		room.End = k.m[i+1].Start
	}
	r := room
	if k.next(4) > 0 {
		r.Start += k.next(min(room.Len(), k.short))
		r.End = r.Start + 1 + k.next(min(room.End-r.Start, k.short))
	}
	a := e.Start + k.next(e.Len())
	k.last = fmt.Sprintf("Resize(%x, %v)", a, r)
	k.x.Resize(a, r)
	e.Range = r
}

// turn freezes, commits or drops the transaction, or goes back to an older
// version.
func (k *machine) turn() {
	if k.alone {
		k.turnAlone()
		return
	}
	switch k.next(8) {
	case 0:
		k.last = "drop and go back"
		// Seldom, or nothing ever grows.
		if n := len(k.versions); n > 0 && k.next(8) == 0 {
			k.begin(k.versions[k.next(uint64(n))])
		}
	case 1, 2, 3:
		k.last = "Freeze"
		k.record(k.x.Freeze())
	default:
		k.last = "Commit"
		k.begin(k.record(k.tree.Commit(k.x)))
	}
}

// turnAlone is turn for transactions of BeginAlone. Of most versions there is no snapshot.
func (k *machine) turnAlone() {
	switch k.next(16) {
	case 0:
		k.last = "drop"
		k.x, k.m, k.meta = k.tree.BeginAlone(spans{k.t}), k.committed.m.clone(), k.committed.meta
	case 1:
		k.last = "go back"
		if n := len(k.versions); n > 0 && k.next(8) == 0 {
			k.begin(k.versions[k.next(uint64(n))])
		}
	case 2:
		k.last = "Freeze"
		k.record(k.x.Freeze())
	case 3:
		k.last = "Commit and go back"
		before := k.tree.Peek()
		k.tree.Commit(k.x)
		k.begin(kept{before, k.committed.m, k.committed.meta})
	case 4:
		k.last = "Commit by others"
		k.tree.Commit(k.x)
		k.tree.Commit(k.tree.Begin(nil))
		k.committed = kept{m: k.m.clone(), meta: k.meta}
		k.x = k.tree.BeginAlone(spans{k.t})
	case 5:
		k.last = "LeaveOld"
		before, m := k.tree.Peek(), k.committed.m
		k.x.LeaveOld()
		k.tree.Commit(k.x)
		k.committed = kept{m: k.m.clone(), meta: k.meta}
		k.x = k.tree.BeginAlone(spans{k.t})
		if d := differs(before, m); d != "" {
			k.t.Fatalf("the version before LeaveOld: %s", d)
		}
	default:
		k.last = "Commit"
		k.tree.Commit(k.x)
		k.committed = kept{m: k.m.clone(), meta: k.meta}
		if k.next(4) == 0 {
			k.record(k.tree.Snapshot())
		}
		k.x = k.tree.BeginAlone(spans{k.t})
	}
}

// check compares the transaction with the model.
func (k *machine) check() {
	if k.x.Meta() != k.meta {
		k.t.Fatalf("%s: Meta is %d, want %d", k.last, k.x.Meta(), k.meta)
	}
	if d := differs(k.x, k.m); d != "" {
		k.t.Fatalf("%s: %s", k.last, d)
	}
	for range 3 {
		k.checkSearch(k.x, k.m)
	}
}

// checkSearch compares the searches of v at a random place with m.
func (k *machine) checkSearch(v view, m model) {
	a, r := k.addr(), k.reach()
	if k.next(8) == 0 {
		r = Range{0, ^uint64(0)}
	}
	n := 1 + k.next(2*k.short)
	if gaps := m.gaps(r); len(gaps) > 0 && k.next(2) == 0 {
		// Just as much as there is, or one more.
		n = max(1, gaps[k.next(uint64(len(gaps)))].Len()+k.next(2))
	}
	if d := differsAt(v, m, a, r, n); d != "" {
		k.t.Fatalf("%s: %s", k.last, d)
	}
}

// run makes and checks steps.
func (k *machine) run(steps int) {
	for range steps {
		k.step()
		k.check()
	}
}

// fill inserts until there are n entries, without checking each.
func (k *machine) fill(n int) {
	for len(k.m) < n {
		if r, ok := k.hole(); ok {
			v := k.value(r.Start)
			k.x.Insert(r, &v)
			k.m.insert(r, v)
		} else {
			return
		}
	}
}

func TestRandomEditsMatchModel(t *testing.T) {
	for _, c := range []struct {
		name         string
		space, short uint64
		fill, steps  int
		wild         bool
	}{
		{"tiny", 64, 8, 0, 4000, true},
		{"small", 3000, 8, 0, 2500, true},
		{"whole address space", ^uint64(0), 1 << 58, 0, 2500, true},
		{"two levels", 1 << 40, 1 << 20, 300, 1200, false},
		{"three levels", 1 << 47, 1 << 20, 2500, 300, false},
		{"three levels, dense", 12000, 8, 2500, 300, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rnd := random(t)
			k := newMachine(t, c.space, c.short, rnd.Uint64N)
			k.wild = c.wild
			k.fill(c.fill)
			k.check()
			k.run(c.steps)
			for _, v := range k.versions {
				if d := differs(v.s, v.m); d != "" {
					t.Fatalf("a kept version: %s", d)
				}
				k.checkSearch(v.s, v.m)
			}
			// And down again, to nothing.
			for len(k.m) > 0 {
				i := k.next(uint64(len(k.m)))
				j := min(i+1+k.next(40), uint64(len(k.m)))
				k.detach(Range{k.m[i].Start, k.m[j-1].End})
				k.check()
			}
		})
	}
}
