package vmatree

import (
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

var hashSeed = maphash.MakeSeed()

// imprint hashes all that a snapshot reaches: not just what its methods show, but
// every slot of every node, and the values. If a node is written to, it changes.
func imprint(s Snapshot[*span, int]) uint64 {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	if s.v == nil {
		return h.Sum64()
	}
	v := s.v
	maphash.WriteComparable(&h, version[*span, int]{root: v.root, count: v.count, ended: v.ended, meta: v.meta})
	if s.v.root != nil {
		imprintNode(&h, s.v.root)
	}
	return h.Sum64()
}

func imprintNode(h *maphash.Hash, n *node) {
	if n.level == 0 {
		l := asLeaf[*span](n)
		maphash.WriteComparable(h, *l)
		for _, e := range l.entries[:l.n] {
			maphash.WriteComparable(h, *e.Value)
		}
		return
	}
	in := asInner(n)
	maphash.WriteComparable(h, *in)
	for _, k := range in.kids[:in.n] {
		imprintNode(h, k)
	}
}

// Several transactions edit what they have in common, turn by turn; each freezes,
// commits, is dropped, starts again from its own or another's snapshots, and
// publishes old ones again. Every snapshot that any of them ever made is kept.
// Meanwhile readers walk the snapshots: under -race, a write to a node
// that a snapshot reaches is reported even if it changes nothing.
func TestSnapshotNeverChanges(t *testing.T) {
	rnd := random(t)
	type print struct {
		s    Snapshot[*span, int]
		sum  uint64
		made string
	}
	var all []print
	var shared atomic.Pointer[print] // what the readers look at
	forest := make([]*machine, 4)
	for i := range forest {
		k := newMachine(t, 1<<40, 1<<20, rnd.Uint64N)
		k.wild = false
		k.keep = func(s Snapshot[*span, int], _ model) {
			all = append(all, print{s, imprint(s), fmt.Sprintf("machine %d: %s", i, k.last)})
			shared.Store(&all[len(all)-1])
		}
		// One of them, and what goes on from it, has three levels.
		k.fill(150)
		if i == 0 {
			k.fill(1600)
		}
		forest[i] = k
	}

	quit := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				if p := shared.Load(); p != nil && imprint(p.s) != p.sum {
					t.Errorf("a reader sees a snapshot change (%s)", p.made)
					return
				}
				runtime.Gosched()
			}
		})
	}

	steps := 80000
	if testing.Short() || raceEnabled {
		steps = 15000
	}
	for step := range steps {
		k := forest[rnd.IntN(len(forest))]
		k.step()
		switch rnd.IntN(200) {
		case 0: // Another one goes on from here, and so does this one.
			v := k.record(k.x.Freeze())
			forest[rnd.IntN(len(forest))].begin(v)
		case 1: // Back to any snapshot ever made.
			if len(all) > 0 {
				s := all[rnd.IntN(len(all))].s
				k.begin(kept{s, collect(s.All()), s.Meta()})
			}
		case 2: // A snapshot that was taken from the tree.
			k.keep(k.tree.Snapshot(), nil)
		}
		if n := len(k.m); n > 1700 || n > 400 && n < 800 {
			// Whole leaves go, and inner nodes with them, none of which
			// the transaction owns.
			k.record(k.x.Freeze())
			k.detach(Range{k.m[n/8].Start + 1, k.m[n/2].End - 1})
		}
		if step%1000 == 0 {
			k.check()
		}
	}
	for _, k := range forest {
		k.check()
	}
	close(quit)
	readers.Wait()

	if len(all) < steps/50 {
		t.Errorf("only %d snapshots were kept: the test tests too little", len(all))
	}
	for i, p := range all {
		if imprint(p.s) != p.sum {
			t.Fatalf("snapshot %d of %d has changed (%s)", i, len(all), p.made)
		}
		if i%50 == 0 {
			if err := p.s.Check(); err != nil {
				t.Fatalf("snapshot %d (%s): %v", i, p.made, err)
			}
		}
	}
}

// Each edit by itself, right after a Freeze, in a tree of three levels: the
// snapshot stays, byte by byte. Ranges are chosen so that leaves and inner nodes
// split, merge and share.
func TestEachEditAfterFreezeCopies(t *testing.T) {
	rnd := random(t)
	for name, edit := range map[string]func(k *machine){
		"Insert": func(k *machine) { k.fill(len(k.m) + 1) },
		"Update": func(k *machine) { k.update() },
		"Resize": func(k *machine) { k.resize() },
		"SplitAt": func(k *machine) {
			e := k.m[k.next(uint64(len(k.m)))]
			k.x.SplitAt(e.Start + 1)
			k.m.splitAt(e.Start + 1)
		},
		"Detach": func(k *machine) {
			i := k.next(uint64(len(k.m) - 5))
			k.detach(Range{k.m[i].Start + 1, k.m[i+4].End})
		},
		"Detach of leaves": func(k *machine) {
			i := int(k.next(uint64(len(k.m) - 300)))
			k.detach(Range{k.m[i].Start + 1, k.m[i+60+int(k.next(240))].End})
			if len(k.m) < 900 {
				k.fill(1600)
			}
		},
		"InsertMerged": func(k *machine) {
			for _, g := range k.m.gaps(Range{1, k.space - 1}) {
				if k.next(50) == 0 {
					i := k.m.at(g.Start - 1)
					if i == len(k.m) || i+1 == len(k.m) {
						continue
					}
					// Made to fit on the left, and the right one to fit.
					v := span{k.m[i].Value.line, k.m[i].Value.off + k.m[i].Len()}
					w := span{v.line, v.off + g.Len()}
					k.x.Update(k.m[i+1].Start, &w)
					k.m[i+1].Value = w
					k.record(k.x.Freeze())
					k.x.InsertMerged(g, &v)
					k.m.insertMerged(g, v)
				}
			}
		},
		"MergeWithin": func(k *machine) {
			e := k.m[k.next(uint64(len(k.m)))]
			k.x.SplitAt(e.Start + e.Len()/2)
			k.m.splitAt(e.Start + e.Len()/2)
			k.record(k.x.Freeze())
			k.x.MergeWithin(e.Range)
			k.m.mergeWithin(e.Range)
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newMachine(t, 1<<40, 1<<20, rnd.Uint64N)
			k.wild = false
			k.fill(1600)
			k.last = name
			type print struct {
				s   Snapshot[*span, int]
				sum uint64
			}
			var all []print
			k.keep = func(s Snapshot[*span, int], _ model) { all = append(all, print{s, imprint(s)}) }
			for range 250 {
				before := k.record(k.x.Freeze())
				sum := imprint(before.s)
				edit(k)
				if imprint(before.s) != sum {
					t.Fatal("the snapshot just before has changed")
				}
			}
			k.check()
			for i, p := range all {
				if imprint(p.s) != p.sum {
					t.Fatalf("snapshot %d of %d has changed", i, len(all))
				}
			}
		})
	}
}

// A transaction that is dropped leaves nothing behind, wherever it had got to.
func TestDroppedTransactionChangesNothing(t *testing.T) {
	rnd := random(t)
	k := newMachine(t, 1<<40, 1<<20, rnd.Uint64N)
	k.fill(500)
	current := k.tree.Commit(k.x)
	m, sum := k.m.clone(), imprint(current)
	for range 200 {
		k.begin(kept{current, m, 0})
		for range rnd.IntN(20) {
			k.step()
		}
		k.tree.Publish(current)
		if imprint(current) != sum {
			t.Fatal("the version it began on has changed")
		}
	}
	if d := differs(k.tree.Snapshot(), m); d != "" {
		t.Fatal(d)
	}
}

// In a transaction that is never frozen, nodes are edited in place: the other half
// of the ownership rule. A tree that copied always would pass all tests above.
func TestOwnedNodesAreEditedInPlace(t *testing.T) {
	ranges, _ := benchData(10000)
	x := benchSnapshot{}.Begin(nil)
	for _, r := range ranges {
		x.Insert(r, benchValue)
	}
	i := 0
	allocs := testing.AllocsPerRun(5000, func() {
		r := ranges[(i*7919)%len(ranges)]
		i++
		x.Detach(r)
		x.Insert(r, benchValue)
		x.Update(r.Start, benchValue)
		x.Resize(r.Start, r)
	})
	if allocs != 0 {
		t.Errorf("%v allocations in an edit of a tree that has one owner, want 0", allocs)
	}
	root := x.now.root
	x.Update(ranges[0].Start, benchValue)
	if x.now.root != root {
		t.Error("an owned root was copied")
	}
	x.Freeze()
	x.Update(ranges[0].Start, benchValue)
	if x.now.root == root {
		t.Error("a frozen root was not copied")
	}
}
