package vmatree

// reads are the methods that a Snapshot and a Txn share. None of them
// allocates, apart from the iterators' closures, and none writes.
type reads[V, M any] struct {
	// v is the version that is read: nil in a zero Snapshot. A Txn points to
	// its own.
	v *version[V, M]
}

// root returns the root, nil if there are no entries.
func (s reads[V, M]) root() *node {
	if s.v == nil {
		return nil
	}
	if s.v.root == nil {
		s.v.mustLive()
	}
	return s.v.root
}

// Meta returns what the writer published with the ranges (of a Txn: what it
// will publish).
func (s reads[V, M]) Meta() M {
	if s.v == nil {
		var zero M
		return zero
	}
	s.v.mustLive()
	return s.v.meta
}

// Len returns the number of entries.
func (s reads[V, M]) Len() int {
	if s.v == nil {
		return 0
	}
	s.v.mustLive()
	return s.v.count
}

// Find returns the entry that contains addr. O(log n).
func (s reads[V, M]) Find(addr uint64) (Entry[V], bool) {
	n := s.root()
	if n == nil {
		return Entry[V]{}, false
	}
	for n.level != 0 {
		in := asInner(n)
		i := countLE(in.starts[:in.n], addr) - 1
		if i < 0 {
			return Entry[V]{}, false
		}
		n = in.kids[i]
	}
	l := asLeaf[V](n)
	i := startsLE(l.entries[:l.n], addr) - 1
	if i < 0 || addr >= l.entries[i].End {
		return Entry[V]{}, false
	}
	return l.entries[i], true
}

// LowerBound returns a cursor at the first entry with End > addr: the one that
// contains addr, or else the next one after it. O(log n).
func (s reads[V, M]) LowerBound(addr uint64) Cursor[V] {
	return lowerBound[V](s.root(), addr)
}

// UpperBound returns a cursor at the last entry with Start <= addr: the one that
// contains addr, or else the last one before it. O(log n).
func (s reads[V, M]) UpperBound(addr uint64) Cursor[V] {
	return upperBound[V](s.root(), addr)
}

// First returns a cursor at the lowest entry. O(log n).
func (s reads[V, M]) First() Cursor[V] {
	// Every End is above 0.
	return lowerBound[V](s.root(), 0)
}

// Last returns a cursor at the highest entry. O(log n).
func (s reads[V, M]) Last() Cursor[V] {
	return upperBound[V](s.root(), ^uint64(0))
}
