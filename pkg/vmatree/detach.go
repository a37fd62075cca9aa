package vmatree

import "iter"

// Detached are the entries that Txn.Detach took out of a tree, in address order.
// They are the caller's own: nothing that happens to any tree changes them, and
// dropping the transaction does not either. The zero value is empty. Copies
// share their entries, which are never written again.
type Detached[V any] struct {
	// The first entry has a place of its own, so that taking out a single one,
	// the usual case, allocates nothing.
	first   Entry[V]
	rest    []Entry[V]
	n       int
	covered uint64
}

// Len returns the number of entries.
func (d Detached[V]) Len() int {
	return d.n
}

// At returns the i-th entry, counting from 0. Panics if there is none.
func (d Detached[V]) At(i int) Entry[V] {
	if i == 0 && d.n > 0 {
		return d.first
	}
	return d.rest[i-1]
}

// All iterates over the entries in address order.
func (d Detached[V]) All() iter.Seq2[Range, V] {
	return func(yield func(Range, V) bool) {
		if d.n == 0 || !yield(d.first.Range, d.first.Value) {
			return
		}
		for _, e := range d.rest {
			if !yield(e.Range, e.Value) {
				return
			}
		}
	}
}

// Covered returns how many bytes the entries cover.
func (d Detached[V]) Covered() uint64 {
	return d.covered
}

func (d *Detached[V]) push(e Entry[V]) {
	if d.n == 0 {
		d.first = e
	} else {
		d.rest = append(d.rest, e)
	}
	d.n++
	d.covered += e.Len()
}

// Detach takes everything inside r out of the tree and returns it. Entries that
// an edge of r cuts are split there, as the policy says; one that sticks out on
// both sides is split at r.Start first, and then its right part at r.End.
//
//	before      |---a---|-------b-------|  |---c---|
//	r                       |----------------|
//	after       |---a---|-b'|                |--c''|
//	Detached                |----b''----|  |-c'|
//
// If r is empty, or nothing is inside it, nothing happens. O(k + log n) for k
// entries; it allocates for the result only if k > 1.
func (x *Txn[V, M]) Detach(r Range) (d Detached[V]) {
	x.mustLive()
	if r.Len() == 0 {
		return d
	}
	for x.detachFromLeaf(r, &d) {
	}
	return d
}

// detachFromLeaf does Detach for the first leaf that has something inside r, and
// returns false if no other leaf has.
func (x *Txn[V, M]) detachFromLeaf(r Range, d *Detached[V]) bool {
	var p path[V]
	if !x.seekEnd(&p, r.Start) || p.leaf.entries[p.i].Start >= r.End {
		return false
	}
	l, i := p.leaf, p.i
	// What is left of the entries at the edges. Two things may stay of one
	// entry, so the leaf may grow, but by one only.
	var keep [2]Entry[V]
	kept := 0
	e := l.entries[i]
	if e.Start < r.Start {
		keep[0], e = x.cut(e, r.Start)
		kept = 1
	}
	j := i + 1
	for e.End < r.End {
		d.push(e)
		if j == int(l.n) || l.entries[j].Start >= r.End {
			more := j == int(l.n) // asked before l is edited
			x.splice(&p, i, j, keep[:kept])
			return more
		}
		e = l.entries[j]
		j++
	}
	if e.End > r.End {
		e, keep[kept] = x.cut(e, r.End)
		kept++
	}
	d.push(e)
	x.splice(&p, i, j, keep[:kept])
	return false
}
