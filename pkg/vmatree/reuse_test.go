package vmatree

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/stretchr/testify/assert"
)

// What no snapshot reaches is used again, and what one reaches is not, however transactions end: they are committed, dropped,
// frozen in between; older versions are published again, and others commit.
func TestReuseLeavesSnapshotsAlone(t *testing.T) {
	for _, c := range []struct {
		name        string
		space       uint64
		fill, steps int
	}{
		{"one leaf", 1 << 30, 10, 2000},
		{"two levels", 1 << 40, 300, 2000},
		{"three levels", 1 << 47, 2500, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			rnd := random(t)
			k := newMachine(t, c.space, 1<<20, rnd.Uint64N)
			k.wild = false
			k.fill(c.fill)
			k.alone = true
			k.begin(k.record(k.tree.Commit(k.x)))
			type print struct {
				s   Snapshot[*span, int]
				sum uint64
			}
			var all []print
			k.keep = func(s Snapshot[*span, int], m model) {
				if d := differs(s, m); d != "" {
					t.Fatalf("%s: a new snapshot: %s", k.last, d)
				}
				all = append(all, print{s, imprint(s)})
			}
			for range c.steps {
				k.step()
				if rnd.IntN(4) == 0 {
					k.turn()
				}
				k.check()
				// The latest are the most likely to change.
				for _, p := range all[max(0, len(all)-5):] {
					if imprint(p.s) != p.sum {
						t.Fatalf("%s: a snapshot has changed", k.last)
					}
				}
			}
			for i, p := range all {
				if imprint(p.s) != p.sum {
					t.Fatalf("snapshot %d of %d has changed", i, len(all))
				}
			}
		})
	}
}

// Readers take snapshots while one writer commits as fast as he can. Under -race, a write to a node that a
// snapshot reaches is reported even if it changes nothing.
func TestReuseBesideReaders(t *testing.T) {
	rnd := random(t)
	k := newMachine(t, 1<<40, 1<<20, rnd.Uint64N)
	k.wild = false
	k.fill(300)
	k.alone = true
	k.begin(k.record(k.tree.Commit(k.x)))
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for !done.Load() {
				s := k.tree.Snapshot()
				sum := imprint(s)
				for range 3 {
					if imprint(s) != sum {
						t.Error("a reader sees his snapshot change")
						return
					}
				}
			}
		})
	}
	for range 20000 {
		k.step()
		if rnd.IntN(2) == 0 {
			k.tree.Commit(k.x)
			k.committed = kept{m: k.m.clone(), meta: k.meta}
			k.x = k.tree.BeginAlone(spans{t})
		}
	}
	done.Store(true)
	readers.Wait()
	k.check()
}

// A commit of a small edit allocates nothing, as long as nobody takes snapshots. One who takes a snapshot of
// each version has it and its nodes to himself.
func TestReuseSavesNodes(t *testing.T) {
	ranges, _ := benchData(10000)
	var tree Tree[*int, struct{}]
	x := tree.Begin(nil)
	for _, r := range ranges {
		x.Insert(r, benchValue)
	}
	tree.Commit(x)
	levels := float64(tree.Snapshot().v.root.level + 1)
	const version = 1.0
	i := 0
	commit := func(begin func() *benchTxn) {
		x := begin()
		x.Update(ranges[(i*7919)%len(ranges)].Start, benchValue)
		i++
		tree.Commit(x)
	}
	alone := func() *benchTxn { return tree.BeginAlone(nil) }
	for range 3 {
		commit(alone) // nodes have to become known first
	}
	assert.Zero(t, testing.AllocsPerRun(1000, func() { commit(alone) }), "alone")
	assert.Equal(t, version+levels, testing.AllocsPerRun(1000, func() {
		tree.Snapshot()
		commit(alone)
	}), "with snapshots")
	assert.Equal(t, 1+version+levels, testing.AllocsPerRun(1000, func() {
		commit(func() *benchTxn { return tree.Begin(nil) })
	}), "not alone")
	commit(alone)
	for range 3 {
		commit(alone)
	}
	assert.Zero(t, testing.AllocsPerRun(1000, func() { commit(alone) }), "alone again")
}

// A tree that was emptied keeps nothing of what it had, though the version before might be used again.
func TestReuseKeepsLittle(t *testing.T) {
	var tree Tree[*[64]byte, struct{}]
	var values []weak.Pointer[[64]byte]
	x := tree.BeginAlone(nil)
	for i := range 1000 {
		v := new([64]byte)
		values = append(values, weak.Make(v))
		x.Insert(Range{uint64(i), uint64(i + 1)}, v)
	}
	tree.Commit(x)
	x = tree.BeginAlone(nil)
	x.Detach(Range{0, 1000})
	tree.Commit(x)
	runtime.GC()
	kept := 0
	for _, v := range values {
		if v.Value() != nil {
			kept++
		}
	}
	assert.Zero(t, kept, "values that are still there")
	runtime.KeepAlive(&tree)
}

// Whoever reads a version that he does not keep current finds out.
func TestSpareNodesAreNotRead(t *testing.T) {
	var tree Tree[int, int]
	x := tree.Begin(nil)
	x.Insert(Range{1, 2}, 1)
	tree.Commit(x)
	commit := func() {
		x := tree.BeginAlone(nil)
		x.Update(1, 2)
		tree.Commit(x)
	}
	commit()
	old := tree.Peek()
	commit()
	assert.NotPanics(t, func() { old.Find(1) }, "it may be published again")
	tree.BeginAlone(nil)
	assert.Panics(t, func() { old.Find(1) })
	assert.Panics(t, func() { old.Begin(nil) })
}

// newSingle returns a tree of one entry with value v, and what commits another value, alone.
func newSingle(v int) (tree *Tree[int, int], set func(v int)) {
	tree = &Tree[int, int]{}
	x := tree.BeginAlone(nil)
	x.Insert(Range{1, 2}, v)
	tree.Commit(x)
	return tree, func(v int) {
		x := tree.BeginAlone(nil)
		x.Update(1, v)
		tree.Commit(x)
	}
}

// A reader who was slow to mark a version that is gone meanwhile gets a later one.
func TestSnapshotOfReplacedVersion(t *testing.T) {
	tree, set := newSingle(1)
	loaded := tree.current.Load()
	set(2)
	next := tree.BeginAlone(nil) // what was loaded is spare now
	assert.True(t, tree.take(loaded).Same(tree.Peek()))
	next.Update(1, 3)
	tree.Commit(next)
	late := tree.take(loaded)
	assert.True(t, late.Same(tree.Peek()))
	for v := range 5 {
		set(v)
	}
	e, _ := late.Find(1)
	assert.Equal(t, 3, e.Value)

	// One that was published again, and taken then, stays.
	before := tree.Peek()
	after := tree.Commit(func() *Txn[int, int] { x := tree.BeginAlone(nil); x.Update(1, 7); return x }())
	tree.Publish(before)
	taken := tree.Snapshot()
	tree.Publish(after)
	for v := range 5 {
		set(v)
	}
	e, _ = taken.Find(1)
	assert.Equal(t, 4, e.Value)

	// So does one that was frozen and published, and that nobody took.
	x := tree.BeginAlone(nil)
	x.Update(1, 8)
	frozen := x.Freeze()
	tree.Publish(frozen)
	for v := range 5 {
		set(v)
	}
	e, _ = frozen.Find(1)
	assert.Equal(t, 8, e.Value)
}

// A reader who was slow to mark a version may find that it is current again, as another one. What he marks then protects nobody, and takes nobody's
// protection away.
func TestSlowReaderOfReusedVersion(t *testing.T) {
	tree, set := newSingle(0)
	slow := tree.current.Load()
	owner := slow.sight.owner.Load()
	value := 0
	again := func() {
		for {
			value++
			if set(value); tree.current.Load() == slow {
				return
			}
			if value == 100 {
				t.Fatal("versions are not used again")
			}
		}
	}
	again()
	slow.sight.mark(owner)
	assert.False(t, tree.isCurrent(slow, owner), "that one is not")
	assert.False(t, slow.sight.marked(), "nobody has a snapshot")
	again() // as it was not marked

	taken, want := tree.Snapshot(), value
	slow.sight.mark(owner)
	for range 10 {
		value++
		set(value)
	}
	e, _ := taken.Find(1)
	assert.Equal(t, want, e.Value)
}
