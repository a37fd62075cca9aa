package vmatree

import "fmt"

// maxInner is how many levels of inner nodes a path has room for. Full to the
// minimum everywhere, such a tree has 2·5¹⁵·7 entries, which is 4·10¹¹.
const maxInner = 16

// A path is the way from the root to a slot of a leaf. It is for edits, which
// come back up; reads only go down.
type path[V any] struct {
	steps [maxInner]step
	depth int // steps in use; 0 if the root is a leaf
	leaf  *leaf[V]
	i     int // slot in leaf
}

type step struct {
	in *inner
	i  int // the child that the path goes through
}

// seekStart leads p to the slot where an entry that starts at addr belongs: after
// all those that start at or below addr. An empty tree gets a root first.
func (x *Txn[V, M]) seekStart(p *path[V], addr uint64) {
	if x.now.root == nil {
		x.now.root = &x.newLeaf().node
	}
	n := x.now.root
	p.depth = 0
	for n.level != 0 {
		in := asInner(n)
		i := max(1, countLE(in.starts[:in.n], addr)) - 1
		p.steps[p.depth] = step{in, i}
		p.depth++
		n = in.kids[i]
	}
	p.leaf = asLeaf[V](n)
	p.i = startsLE(p.leaf.entries[:p.leaf.n], addr)
}

// seekEnd leads p to the first entry with End > addr, and returns false if there
// is none.
func (x *Txn[V, M]) seekEnd(p *path[V], addr uint64) bool {
	n := x.now.root
	if n == nil {
		return false
	}
	p.depth = 0
	for n.level != 0 {
		in := asInner(n)
		i := countLE(in.ends[:in.n], addr)
		if i == int(in.n) {
			return false
		}
		p.steps[p.depth] = step{in, i}
		p.depth++
		n = in.kids[i]
	}
	p.leaf = asLeaf[V](n)
	p.i = endsLE(p.leaf.entries[:p.leaf.n], addr)
	return p.i < int(p.leaf.n)
}

// seekHole leads p to the slot where (r, …) belongs. Panics if r is empty or
// overlaps an entry.
func (x *Txn[V, M]) seekHole(p *path[V], r Range, op string) {
	if r.Len() == 0 {
		panic(fmt.Sprintf("vmatree: %s: empty range %v", op, r))
	}
	x.seekStart(p, r.Start)
	if p.endBefore(p.i) > r.Start || p.startFrom(p.i) < r.End {
		panic(fmt.Sprintf("vmatree: %s: %v overlaps an entry", op, r))
	}
}

// seekEntry leads p to the entry that contains addr. Panics if there is none.
func (x *Txn[V, M]) seekEntry(p *path[V], addr uint64, op string) {
	if !x.seekEnd(p, addr) || p.leaf.entries[p.i].Start > addr {
		panic(fmt.Sprintf("vmatree: %s: no entry contains %x", op, addr))
	}
}

// endBefore returns where the entry before slot i of p's leaf ends, 0 if there
// is none.
func (p *path[V]) endBefore(i int) uint64 {
	if i > 0 {
		return p.leaf.entries[i-1].End
	}
	for d := p.depth - 1; d >= 0; d-- {
		if s := p.steps[d]; s.i > 0 {
			return s.in.ends[s.i-1]
		}
	}
	return 0
}

// startFrom returns where the entry at slot i of p's leaf, or the first one of
// the next leaf, starts; 1<<64-1 if there is none.
func (p *path[V]) startFrom(i int) uint64 {
	if i < int(p.leaf.n) {
		return p.leaf.entries[i].Start
	}
	for d := p.depth - 1; d >= 0; d-- {
		if s := p.steps[d]; s.i+1 < int(s.in.n) {
			return s.in.starts[s.i+1]
		}
	}
	return ^uint64(0)
}

// next returns the entry at p's slot, or the first one of the next leaf.
func (p *path[V]) next() (Entry[V], bool) {
	if p.i < int(p.leaf.n) {
		return p.leaf.entries[p.i], true
	}
	for d := p.depth - 1; d >= 0; d-- {
		s := p.steps[d]
		if s.i+1 == int(s.in.n) {
			continue
		}
		n := s.in.kids[s.i+1]
		for n.level != 0 {
			n = asInner(n).kids[0]
		}
		return asLeaf[V](n).entries[0], true
	}
	return Entry[V]{}, false
}

// ownInner makes the inner nodes of p the transaction's own.
func (x *Txn[V, M]) ownInner(p *path[V]) {
	slot := &x.now.root
	for d := range p.depth {
		*slot = x.own(*slot)
		in := asInner(*slot)
		p.steps[d].in = in
		slot = &in.kids[p.steps[d].i]
	}
}

// ownPath makes all nodes of p the transaction's own.
func (x *Txn[V, M]) ownPath(p *path[V]) {
	x.ownInner(p)
	slot := &x.now.root
	if p.depth > 0 {
		s := &p.steps[p.depth-1]
		slot = &s.in.kids[s.i]
	}
	*slot = x.own(*slot)
	p.leaf = asLeaf[V](*slot)
}
