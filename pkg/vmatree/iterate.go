package vmatree

import "iter"

// All iterates over all entries in address order. The iterator of a Txn must not
// be used across an edit of that Txn.
func (s reads[V, M]) All() iter.Seq2[Range, V] {
	return func(yield func(Range, V) bool) {
		if root := s.root(); root != nil {
			ascend(root, yield)
		}
	}
}

// Within iterates in address order over the entries that overlap r. They are
// whole, not clipped to r; if r is empty there are none. O(log n) to begin. What
// All says about a Txn holds here too.
//
// Most of the time there are one or two, so nothing about it allocates: it is small enough
// for the compiler to make a loop of it where it is used.
func (s reads[V, M]) Within(r Range) iter.Seq2[Range, V] {
	return func(yield func(Range, V) bool) {
		for c := lowerBound[V](s.root(), r.Start); c.before(r); c.Next() {
			if !yield(c.Range(), c.Value()) {
				return
			}
		}
	}
}

// before returns whether c is at an entry that begins before the end of r, if r has any addresses.
func (c *Cursor[V]) before(r Range) bool {
	return c.Valid() && c.Range().Start < r.End && r.Len() != 0
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

// ascend calls yield for all entries under n, lowest first, and returns false
// if yield did.
func ascend[V any](n *node, yield func(Range, V) bool) bool {
	if n.level == 0 {
		l := asLeaf[V](n)
		for i := range int(l.n) {
			if !yield(l.entries[i].Range, l.entries[i].Value) {
				return false
			}
		}
		return true
	}
	in := asInner(n)
	for i := range int(in.n) {
		if !ascend(in.kids[i], yield) {
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
