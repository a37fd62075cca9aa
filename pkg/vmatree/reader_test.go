package vmatree

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// An edit that readers must see whole or not at all.
type replaced struct {
	id    int
	where Range
	count int // entries in the tree
}

// stamp is the value of each entry: the edit that it came with.
type stamp struct{ id int }

// stamps merges entries of one edit, as the parts of one mapping would.
type stamps struct{}

func (stamps) Split(r Range, v *stamp, at uint64) (left, right *stamp) { return v, v }
func (stamps) Merge(l Range, lv *stamp, r Range, rv *stamp) (*stamp, bool) {
	return lv, lv.id == rv.id
}

type stampTree = Tree[*stamp, replaced]
type stampSnapshot = Snapshot[*stamp, replaced]
type stampTxn = Txn[*stamp, replaced]

const covers = 100000 // the ranges of the tree always cover [0, covers)

// seesWhole checks, in one snapshot, what is promised to readers:
//
//  1. there is no gap, and no overlap, in whatever way one looks for them;
//  2. what is published with the ranges goes with them;
//  3. the last edit is there entirely: its range holds its stamp, nothing else
//     does, and nothing of a later edit is anywhere.
func seesWhole(s stampSnapshot) error {
	all, last := Range{0, covers}, s.Meta()
	if got := s.Covered(all); got != covers {
		return fmt.Errorf("%d bytes are covered, want %d", got, covers)
	}
	if g, ok := s.FirstGap(all, 1); ok {
		return fmt.Errorf("FirstGap finds a gap at %v", g)
	}
	if g, ok := s.LastGap(all, 1); ok {
		return fmt.Errorf("LastGap finds a gap at %v", g)
	}
	var end uint64
	count, stamped := 0, uint64(0)
	for r, v := range s.All() {
		if r.Start != end {
			return fmt.Errorf("%v comes after %x", r, end)
		}
		end = r.End
		count++
		switch {
		case v.id > last.id:
			return fmt.Errorf("%v is from edit %d, but the last is %d", r, v.id, last.id)
		case v.id == last.id:
			if r.Intersect(last.where) != r {
				return fmt.Errorf("%v is from edit %d, which was in %v only", r, v.id, last.where)
			}
			stamped += r.Len()
		}
	}
	if end != covers || count != last.count || s.Len() != last.count {
		return fmt.Errorf("%d entries up to %x, Len %d, want %d up to %x", count, end, s.Len(), last.count, covers)
	}
	if stamped != last.where.Len() {
		return fmt.Errorf("edit %d is on %d bytes, want %v", last.id, stamped, last.where)
	}
	start := uint64(covers)
	for r := range s.Backward() {
		if r.End != start {
			return fmt.Errorf("backward, %v comes after %x", r, start)
		}
		start = r.Start
	}
	if start != 0 {
		return fmt.Errorf("backward, the last start is %x", start)
	}
	return nil
}

// replace makes the edit id in a transaction: the range w, which covers entries, or
// parts of them, is replaced, by one of the ways in which pkg/mm would do it.
func replace(rnd *rand.Rand, x *stampTxn, w Range, id int) {
	v := &stamp{id}
	switch rnd.IntN(3) {
	case 0: // as mmap(MAP_FIXED)
		x.Detach(w)
		x.InsertMerged(w, v)
	case 1: // as mprotect
		x.SplitAt(w.Start)
		x.SplitAt(w.End)
		for c := x.LowerBound(w.Start); c.Valid() && c.Range().Start < w.End; {
			next := c.Range().End
			x.Update(c.Range().Start, v)
			c = x.LowerBound(next)
		}
		if rnd.IntN(2) == 0 {
			x.MergeWithin(w)
		}
	case 2: // as munmap and several mmaps
		x.Detach(w)
		for at := w.Start; at < w.End; {
			end := min(w.End, at+1+rnd.Uint64N(w.Len()))
			x.Insert(Range{at, end}, v)
			at = end
		}
	}
	x.SetMeta(replaced{id, w, x.Len()})
}

// A reader that looks at any time sees the tree before or after an edit, and never
// in the middle, while a writer replaces, splits and merges at the start, in the
// middle and at the end of entries. Edits are seen in order.
func TestReadersSeeWholeEdits(t *testing.T) {
	rnd := random(t)
	var tree stampTree
	x := tree.Begin(stamps{})
	for at := uint64(0); at < covers; {
		end := min(covers, at+1+rnd.Uint64N(1000))
		x.Insert(Range{at, end}, &stamp{0})
		at = end
	}
	x.SetMeta(replaced{0, Range{0, covers}, x.Len()})
	tree.Commit(x)

	quit := make(chan struct{})
	var readers sync.WaitGroup
	var looks [2]int
	for i := range looks {
		readers.Go(func() {
			last := -1
			for stop := false; !stop; {
				select {
				case <-quit:
					stop = true // after one more look
				default:
				}
				s := tree.Snapshot()
				if err := seesWhole(s); err != nil {
					t.Error(err)
					return
				}
				if id := s.Meta().id; id < last {
					t.Errorf("edit %d is seen after edit %d", id, last)
					return
				} else {
					last = id
				}
				looks[i]++
			}
		})
	}

	edits := 15000
	if raceEnabled {
		edits = 4000
	}
	for id := 1; id <= edits; id++ {
		x := tree.Begin(stamps{})
		e, _ := x.Find(rnd.Uint64N(covers))
		w := e.Range
		switch cut := 1 + rnd.Uint64N(w.Len()); rnd.IntN(5) {
		case 0: // the start
			w.End = w.Start + cut
		case 1: // the end
			w.Start = w.End - cut
		case 2: // the middle
			w.Start += w.Len() / 3
			w.End -= (w.End - w.Start) / 3
		case 3: // into the neighbours
			w = Range{w.Start - min(w.Start, cut), min(covers, w.End+cut)}
		}
		replace(rnd, x, w, id)
		if rnd.IntN(10) == 0 {
			// Frozen, but not published; then it is dropped.
			if err := seesWhole(x.Freeze()); err != nil {
				t.Fatal(err)
			}
			x = tree.Begin(stamps{})
			replace(rnd, x, w, id)
		}
		tree.Commit(x)
	}
	close(quit)
	readers.Wait()
	if looks[0] < 2 || looks[1] < 2 {
		t.Errorf("readers looked %v times only", looks)
	}
}

// Values that are immutable may be read through old snapshots and detached sets
// while the tree goes on.
func TestDetachedIsTheCallersOwn(t *testing.T) {
	rnd := random(t)
	k := newMachine(t, 1<<40, 1<<20, rnd.Uint64N)
	k.wild = false
	k.fill(800)
	type set struct {
		d Detached[*span]
		m model
	}
	var sets []set
	for range 300 {
		i := k.next(uint64(len(k.m) - 4))
		r := Range{k.m[i].Start + 1, k.m[i+k.next(4)].End}
		d := k.x.Detach(r)
		sets = append(sets, set{d, k.m.detach(r)})
		for range 5 {
			k.step()
		}
		k.fill(700)
	}
	for _, s := range sets {
		if got := collect(s.d.All()); !slices.Equal(got, s.m) {
			t.Fatalf("a detached set has changed:\n got %v\nwant %v", got, s.m)
		}
	}
}

// Transactions on one snapshot may be edited at the same time: they know nothing of
// each other, and one of them at most can be committed.
func TestTransactionsOnOneSnapshotAreIndependent(t *testing.T) {
	rnd := random(t)
	k := newMachine(t, 1<<40, 1<<20, rnd.Uint64N)
	k.fill(600)
	base, m := k.tree.Commit(k.x), k.m
	sum := imprint(base)
	var writers sync.WaitGroup
	for range 4 {
		seed := rnd.Uint64()
		writers.Go(func() {
			w := newMachine(t, 1<<40, 1<<20, rand.New(rand.NewPCG(seed, 1)).Uint64N)
			w.begin(kept{base, m, 0})
			w.wild = false
			for range 1500 {
				w.step()
			}
			if d := differs(w.x, w.m); d != "" {
				t.Error(d)
			}
		})
	}
	writers.Wait()
	if imprint(base) != sum {
		t.Error("their common snapshot has changed")
	}
}
