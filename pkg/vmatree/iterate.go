package vmatree

import "iter"

// All iterates over all entries in address order. The iterator of a Txn must not
// be used across an edit of that Txn.
func (s reads[V, M]) All() iter.Seq2[Range, V] {
	return s.Within(Range{0, ^uint64(0)})
}

// Within iterates in address order over the entries that overlap r. They are
// whole, not clipped to r; if r is empty there are none. O(log n) to begin. What
// All says about a Txn holds here too.
func (s reads[V, M]) Within(r Range) iter.Seq2[Range, V] {
	return func(yield func(Range, V) bool) {
		if root := s.root(); root != nil && r.Len() != 0 {
			ascend(root, r, yield)
		}
	}
}

// Backward iterates over all entries from the highest address down. What All
// says about a Txn holds here too.
func (s reads[V, M]) Backward() iter.Seq2[Range, V] {
	return func(yield func(Range, V) bool) {
		if root := s.root(); root != nil {
			descend(root, yield)
		}
	}
}

// ascend calls yield for the entries under n that overlap r, and returns false
// if yield did.
func ascend[V any](n *node, r Range, yield func(Range, V) bool) bool {
	if n.level == 0 {
		l := asLeaf[V](n)
		first, end := 0, int(l.n)
		// Only the leaves at the edges of r are searched.
		if l.entries[0].Start < r.Start {
			first = endsLE(l.entries[:end], r.Start)
		}
		if l.entries[end-1].Start >= r.End {
			end = startsLE(l.entries[:end], r.End-1)
		}
		for i := first; i < end; i++ {
			if !yield(l.entries[i].Range, l.entries[i].Value) {
				return false
			}
		}
		return true
	}
	in := asInner(n)
	for i := countLE(in.ends[:in.n], r.Start); i < int(in.n) && in.starts[i] < r.End; i++ {
		if !ascend(in.kids[i], r, yield) {
			return false
		}
	}
	return true
}

// descend calls yield for all entries under n, highest first, and returns false
// if yield did.
func descend[V any](n *node, yield func(Range, V) bool) bool {
	if n.level == 0 {
		l := asLeaf[V](n)
		for i := int(l.n) - 1; i >= 0; i-- {
			if !yield(l.entries[i].Range, l.entries[i].Value) {
				return false
			}
		}
		return true
	}
	in := asInner(n)
	for i := int(in.n) - 1; i >= 0; i-- {
		if !descend(in.kids[i], yield) {
			return false
		}
	}
	return true
}
