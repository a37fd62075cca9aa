package vmatree

import "fmt"

// Check walks the whole tree and returns an error that names the first broken
// invariant it meets: order, disjointness, non-empty ranges, separators, fill,
// depth, the gap and coverage summaries of every node, the number of entries, what
// lies in unused slots, and that no node is newer than the one above. It is O(n)
// and for tests. Nothing that the exported methods do can make it fail,
// unless a Txn is used by two goroutines.
func (s reads[V, M]) Check() error {
	root := s.root()
	if root == nil {
		if n := s.Len(); n != 0 {
			return fmt.Errorf("vmatree: no root, but %d entries", n)
		}
		return nil
	}
	if root.level != 0 && root.n < 2 {
		return fmt.Errorf("vmatree: root: %d children, want at least 2", root.n)
	}
	c := checker[V]{}
	if _, err := c.node(root, "root", true); err != nil {
		return fmt.Errorf("vmatree: %w", err)
	}
	if c.count != s.Len() {
		return fmt.Errorf("vmatree: %d entries, but Len is %d", c.count, s.Len())
	}
	return nil
}

// checker walks the nodes in address order. It adds up the summaries itself, from
// the entries: a mistake in summarize must not hide itself.
type checker[V any] struct {
	last  uint64 // end of the last entry seen
	count int    // entries seen
}

func (c *checker[V]) node(n *node, name string, root bool) (summary, error) {
	limit := innerMax
	if n.level == 0 {
		limit = leafMax
	}
	switch {
	case n.n == 0:
		return summary{}, fmt.Errorf("%s: empty", name)
	case int(n.n) > limit:
		return summary{}, fmt.Errorf("%s: %d slots in use, want at most %d", name, n.n, limit)
	case !root && n.underfull():
		return summary{}, fmt.Errorf("%s: level %d: %d slots in use are too few", name, n.level, n.n)
	}
	if n.level == 0 {
		return c.leaf(asLeaf[V](n), name)
	}
	return c.inner(asInner(n), name)
}

func (c *checker[V]) leaf(l *leaf[V], name string) (sum summary, err error) {
	for i := range int(l.n) {
		r := l.entries[i].Range
		if r.Len() == 0 {
			return sum, fmt.Errorf("%s: slot %d: empty range %v", name, i, r)
		}
		if r.Start < c.last {
			return sum, fmt.Errorf("%s: slot %d: %v begins before the end %x of the entry before", name, i, r, c.last)
		}
		sum = sum.then(summary{start: r.Start, end: r.End, covered: r.Len()})
		c.last = r.End
		c.count++
	}
	for i := int(l.n); i < leafMax; i++ {
		// What lies there would keep its value alive.
		if r := l.entries[i].Range; r != (Range{}) {
			return sum, fmt.Errorf("%s: slot %d is not in use, but holds %v", name, i, r)
		}
	}
	return sum, nil
}

func (c *checker[V]) inner(in *inner, name string) (sum summary, err error) {
	for i := range int(in.n) {
		name := fmt.Sprintf("%s.%d", name, i)
		k := in.kids[i]
		if k == nil {
			return sum, fmt.Errorf("%s: missing", name)
		}
		if k.level != in.level-1 {
			return sum, fmt.Errorf("%s: level %d below level %d", name, k.level, in.level)
		}
		if k.owner > in.owner {
			// Owners count up, and who owns a node owns all above it.
			return sum, fmt.Errorf("%s: owner %d below the older owner %d", name, k.owner, in.owner)
		}
		want, err := c.node(k, name, false)
		if err != nil {
			return sum, err
		}
		if got := in.summaryOf(i); got != want {
			return sum, fmt.Errorf("%s: parent records %+v, child has %+v", name, got, want)
		}
		sum = sum.then(want)
	}
	for i := int(in.n); i < innerMax; i++ {
		if in.kids[i] != nil {
			return sum, fmt.Errorf("%s: slot %d is not in use, but holds a child", name, i)
		}
	}
	return sum, nil
}

// then returns the summary of what s sums up and what next does, which comes after
// it. The zero summary sums up nothing: no entry ends at 0.
func (s summary) then(next summary) summary {
	if s.end == 0 {
		return next
	}
	return summary{
		start:   s.start,
		end:     next.end,
		gap:     max(s.gap, next.start-s.end, next.gap),
		covered: s.covered + next.covered,
	}
}
