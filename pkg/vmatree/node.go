package vmatree

import (
	"math/bits"
	"unsafe"
)

// How many entries a leaf and how many children an inner node has.
//
// The maxima fill the allocator's size class of 768 bytes, for a V of one
// pointer. (It puts a word of its own in front of objects above 512 bytes that
// hold pointers.) Long leaves make iterating fast, since each new leaf is a cache
// miss; but every commit copies one, and what it replaces becomes garbage. The path of
// a tree of 64 000 entries, one leaf and three or four inner nodes, is copied in less than
// 4 KiB. docs/vmatree.md has what other sizes cost.
//
// The minima are far below half, so that a node that was just split or merged is
// far from its next split or merge, and an edit seldom touches a neighbour.
const (
	leafMax = 30
	leafMin = 7

	innerMax = 18
	innerMin = 5
)

// Two neighbours of which one is below its minimum become one node if they have
// no more slots than this in use, which leaves room for more. Otherwise each
// gets half, which is above the minimum.
const (
	leafJoin  = leafMax * 3 / 4
	innerJoin = innerMax * 3 / 4
)

// node is what a leaf and an inner node have in common. It is the first field
// of both, so that a child pointer can point to either. Inner nodes are the same
// for every V, so only what looks into leaves is generic.
type node struct {
	owner uint64 // the transaction that may write here; see Txn.own
	n     uint16 // slots in use
	level uint16 // 0 for leaves
}

// A leaf holds entries in address order. Slots from n on hold zero values, so
// that they keep nothing alive.
//
// Entries are kept whole, not as one array for each field: iterating streams
// through memory, and a search, which ends at one entry, misses the cache no
// more often.
type leaf[V any] struct {
	node
	entries [leafMax]Entry[V]
}

// An inner node holds children of one level in address order, with a summary of
// each. The summaries are in the parent, not in the child, so that a search
// reads only the nodes it descends into.
type inner struct {
	node
	starts  [innerMax]uint64 // start of the child's first entry
	ends    [innerMax]uint64 // end of the child's last entry
	gaps    [innerMax]uint64 // longest gap between two entries of the child
	covered [innerMax]uint64 // bytes covered by the child's entries
	kids    [innerMax]*node
}

// The only places that know what a *node points to. Callers look at level first.

func asLeaf[V any](n *node) *leaf[V] { return (*leaf[V])(unsafe.Pointer(n)) }
func asInner(n *node) *inner         { return (*inner)(unsafe.Pointer(n)) }

// underfull tells whether n, if it is not the root, must be merged with a
// neighbour or filled from one.
func (n *node) underfull() bool {
	if n.level == 0 {
		return n.n < leafMin
	}
	return n.n < innerMin
}

// countLE returns how many of the ascending numbers a are <= x. With starts,
// less one, that is the last slot that starts at or below x; with ends, the
// first slot that ends above x.
func countLE(a []uint64, x uint64) int {
	lo := 0
	for n := len(a); n > 0; {
		half := (n + 1) >> 1
		_, above := bits.Sub64(x, a[lo+half-1], 0)
		lo += half & (int(above) - 1)
		n -= half
	}
	return lo
}

// startsLE and endsLE are countLE for the Start and the End of entries in order.

func startsLE[V any](a []Entry[V], x uint64) int {
	lo := 0
	for n := len(a); n > 0; {
		half := (n + 1) >> 1
		_, above := bits.Sub64(x, a[lo+half-1].Start, 0)
		lo += half & (int(above) - 1)
		n -= half
	}
	return lo
}

func endsLE[V any](a []Entry[V], x uint64) int {
	lo := 0
	for n := len(a); n > 0; {
		half := (n + 1) >> 1
		_, above := bits.Sub64(x, a[lo+half-1].End, 0)
		lo += half & (int(above) - 1)
		n -= half
	}
	return lo
}

// A summary is what a parent knows about a child.
type summary struct {
	start, end, gap, covered uint64
}

func summarize[V any](n *node) summary {
	if n.level == 0 {
		return asLeaf[V](n).summary()
	}
	return asInner(n).summary()
}

func (l *leaf[V]) summary() summary {
	n := int(l.n)
	s := summary{start: l.entries[0].Start, end: l.entries[n-1].End}
	last := s.start
	for i := range n {
		r := l.entries[i].Range
		s.gap = max(s.gap, r.Start-last)
		last = r.End
		s.covered += last - r.Start
	}
	return s
}

func (in *inner) summary() summary {
	n := int(in.n)
	s := summary{start: in.starts[0], end: in.ends[n-1]}
	last := s.start
	for i := range n {
		s.gap = max(s.gap, in.gaps[i], in.starts[i]-last)
		last = in.ends[i]
		s.covered += in.covered[i]
	}
	return s
}

// summaryOf returns what in records about its child i.
func (in *inner) summaryOf(i int) summary {
	return summary{in.starts[i], in.ends[i], in.gaps[i], in.covered[i]}
}

// setKid makes c the child i of in and records its summary. It reports whether
// that differs from what was recorded before.
func setKid[V any](in *inner, i int, c *node) bool {
	s := summarize[V](c)
	in.kids[i] = c
	if s == in.summaryOf(i) {
		return false
	}
	in.starts[i], in.ends[i], in.gaps[i], in.covered[i] = s.start, s.end, s.gap, s.covered
	return true
}

// open makes room for k slots at i. They hold rubbish until they are written.
func (l *leaf[V]) open(i, k int) {
	n := int(l.n)
	copy(l.entries[i+k:], l.entries[i:n])
	l.n += uint16(k)
}

// close removes the slots [i, j).
func (l *leaf[V]) close(i, j int) {
	n := int(l.n)
	copy(l.entries[i:], l.entries[j:n])
	rest := n - (j - i)
	clear(l.entries[rest:n])
	l.n = uint16(rest)
}

// copyFrom writes the slots [lo, hi) of from to the slots at i, which are in
// use.
func (l *leaf[V]) copyFrom(i int, from *leaf[V], lo, hi int) {
	copy(l.entries[i:], from.entries[lo:hi])
}

// open, close and copyFrom of an inner node do what those of a leaf do.

func (in *inner) open(i, k int) {
	n := int(in.n)
	copy(in.starts[i+k:], in.starts[i:n])
	copy(in.ends[i+k:], in.ends[i:n])
	copy(in.gaps[i+k:], in.gaps[i:n])
	copy(in.covered[i+k:], in.covered[i:n])
	copy(in.kids[i+k:], in.kids[i:n])
	in.n += uint16(k)
}

func (in *inner) close(i, j int) {
	n := int(in.n)
	copy(in.starts[i:], in.starts[j:n])
	copy(in.ends[i:], in.ends[j:n])
	copy(in.gaps[i:], in.gaps[j:n])
	copy(in.covered[i:], in.covered[j:n])
	copy(in.kids[i:], in.kids[j:n])
	rest := n - (j - i)
	clear(in.starts[rest:n])
	clear(in.ends[rest:n])
	clear(in.gaps[rest:n])
	clear(in.covered[rest:n])
	clear(in.kids[rest:n])
	in.n = uint16(rest)
}

func (in *inner) copyFrom(i int, from *inner, lo, hi int) {
	copy(in.starts[i:], from.starts[lo:hi])
	copy(in.ends[i:], from.ends[lo:hi])
	copy(in.gaps[i:], from.gaps[lo:hi])
	copy(in.covered[i:], from.covered[lo:hi])
	copy(in.kids[i:], from.kids[lo:hi])
}
