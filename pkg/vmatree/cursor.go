package vmatree

// A Cursor is a position at an entry. It is a value: it can be copied, and the
// copies move on their own. Nothing about it allocates.
//
// A cursor over a Snapshot stays good for ever. A cursor over a Txn is invalid
// after an edit of that Txn: what it then does is undefined, though it never
// leaves the memory of the tree.
//
// The zero value is not at an entry.
type Cursor[V any] struct {
	// There is no path to climb: at the edge of a leaf the cursor goes down
	// from the root again. That costs O(log n) every so many entries, one or
	// two nanoseconds per step, and makes the cursor so small that a loop keeps
	// it in registers. One that also knew the node above took ten.
	root *node
	leaf *leaf[V] // nil if not at an entry
	i    int
}

func lowerBound[V any](root *node, addr uint64) Cursor[V] {
	if root == nil {
		return Cursor[V]{}
	}
	n := root
	for n.level != 0 {
		in := asInner(n)
		i := countLE(in.ends[:in.n], addr)
		if i == int(in.n) {
			return Cursor[V]{}
		}
		n = in.kids[i]
	}
	l := asLeaf[V](n)
	i := endsLE(l.entries[:l.n], addr)
	if i == int(l.n) {
		return Cursor[V]{}
	}
	return Cursor[V]{root, l, i}
}

func upperBound[V any](root *node, addr uint64) Cursor[V] {
	if root == nil {
		return Cursor[V]{}
	}
	n := root
	for n.level != 0 {
		in := asInner(n)
		i := countLE(in.starts[:in.n], addr) - 1
		if i < 0 {
			return Cursor[V]{}
		}
		n = in.kids[i]
	}
	l := asLeaf[V](n)
	i := startsLE(l.entries[:l.n], addr) - 1
	if i < 0 {
		return Cursor[V]{}
	}
	return Cursor[V]{root, l, i}
}

// Valid tells whether c is at an entry.
func (c *Cursor[V]) Valid() bool {
	return c.leaf != nil
}

// Range returns the range of the entry that c is at. Panics if c is not valid.
func (c *Cursor[V]) Range() Range {
	return c.leaf.entries[c.i].Range
}

// Value returns the value of the entry that c is at. Panics if c is not valid.
func (c *Cursor[V]) Value() V {
	return c.leaf.entries[c.i].Value
}

// Entry returns the entry that c is at. Panics if c is not valid.
func (c *Cursor[V]) Entry() Entry[V] {
	return c.leaf.entries[c.i]
}

// Next moves c to the next higher entry. If there is none, c is no longer valid
// and remains so. Amortised O(1). Does nothing if c is not valid.
func (c *Cursor[V]) Next() {
	switch {
	case c.leaf == nil:
	case c.i+1 < int(c.leaf.n):
		c.i++
	default:
		// Nothing ends above 1<<64-1, so this is right there too.
		*c = lowerBound[V](c.root, c.leaf.entries[c.i].End)
	}
}

// Prev moves c to the next lower entry. If there is none, c is no longer valid
// and remains so. Amortised O(1). Does nothing if c is not valid.
func (c *Cursor[V]) Prev() {
	switch {
	case c.leaf == nil:
	case c.i > 0:
		c.i--
	case c.leaf.entries[0].Start == 0:
		*c = Cursor[V]{}
	default:
		*c = upperBound[V](c.root, c.leaf.entries[0].Start-1)
	}
}
