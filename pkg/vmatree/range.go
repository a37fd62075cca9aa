package vmatree

import "fmt"

// A Range is the half-open address range [Start, End).
//
// The last address of the space, 1<<64-1, is in no Range: End would have to be
// 1<<64. A Range that reaches to the end of the space has End 1<<64-1.
type Range struct {
	Start, End uint64
}

// Len returns the number of bytes in r, 0 if r is empty or inverted.
func (r Range) Len() uint64 {
	if r.End <= r.Start {
		return 0
	}
	return r.End - r.Start
}

// Contains tells whether addr is in r.
func (r Range) Contains(addr uint64) bool {
	return r.Start <= addr && addr < r.End
}

// Overlaps tells whether r and o have an address in common. An empty range
// overlaps nothing, wherever it lies.
func (r Range) Overlaps(o Range) bool {
	return r.Intersect(o).Len() != 0
}

// Intersect returns the addresses that are in both r and o. If there are none,
// the result has length 0 and its edges mean nothing.
func (r Range) Intersect(o Range) Range {
	i := Range{max(r.Start, o.Start), min(r.End, o.End)}
	if i.End < i.Start {
		i.End = i.Start
	}
	return i
}

// String returns r the way /proc/[pid]/maps writes it.
func (r Range) String() string {
	return fmt.Sprintf("%x-%x", r.Start, r.End)
}

// An Entry is one range of a tree and the value it carries.
type Entry[V any] struct {
	Range
	Value V
}

// A Policy says how values are cut and joined. It is given to each transaction,
// so that a caller can record what a transaction did to its values. Its methods
// are called on the goroutine that edits, in the middle of the edit: they must
// not use the transaction, and if they panic the edit has not happened or, for
// an edit of many entries, has happened up to there.
//
// A transaction that neither cuts nor merges needs no Policy and may be given
// nil.
type Policy[V any] interface {
	// Split returns the values of [r.Start, at) and [at, r.End) when the entry
	// (r, v) is cut at an address strictly inside it: r.Start < at < r.End.
	Split(r Range, v V, at uint64) (left, right V)

	// Merge returns the value of [l.Start, r.End) if (l, lv) and (r, rv), which
	// touch (l.End == r.Start), may become one entry, and false if they stay
	// two. One of them may be the result of a merge just before, not yet seen
	// in the tree.
	Merge(l Range, lv V, r Range, rv V) (merged V, ok bool)
}
