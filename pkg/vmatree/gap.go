package vmatree

// Covered returns how many bytes of r the entries cover. O(log n).
func (s reads[V, M]) Covered(r Range) uint64 {
	root := s.root()
	if root == nil || r.Len() == 0 {
		return 0
	}
	return coveredBelow[V](root, r.End) - coveredBelow[V](root, r.Start)
}

// coveredBelow returns how many bytes below addr the entries under n cover.
func coveredBelow[V any](n *node, addr uint64) uint64 {
	var sum uint64
	for n.level != 0 {
		in := asInner(n)
		i := countLE(in.starts[:in.n], addr) - 1
		if i < 0 {
			return sum
		}
		for _, c := range in.covered[:i] {
			sum += c
		}
		if in.ends[i] <= addr {
			return sum + in.covered[i]
		}
		n = in.kids[i]
	}
	l := asLeaf[V](n)
	for i := 0; i < int(l.n) && l.entries[i].Start < addr; i++ {
		sum += min(l.entries[i].End, addr) - l.entries[i].Start
	}
	return sum
}

// FirstGap returns the lowest gap of at least n bytes inside bounds. A gap
// reaches from one entry to the next, or to the edge of bounds: it is clipped to
// bounds, and only what is left counts. O(log n). Panics if n is 0.
func (s reads[V, M]) FirstGap(bounds Range, n uint64) (Range, bool) {
	if n == 0 {
		panic("vmatree: FirstGap: a gap has at least 1 byte")
	}
	root := s.root()
	if root == nil {
		return fit(0, ^uint64(0), bounds, n)
	}
	all := summarize[V](root)
	if g, ok := fit(0, all.start, bounds, n); ok {
		return g, true
	}
	if g, ok := firstGap[V](root, bounds, n); ok {
		return g, true
	}
	return fit(all.end, ^uint64(0), bounds, n)
}

// LastGap returns the highest gap of at least n bytes inside bounds, clipped to
// bounds like that of FirstGap. O(log n). Panics if n is 0.
func (s reads[V, M]) LastGap(bounds Range, n uint64) (Range, bool) {
	if n == 0 {
		panic("vmatree: LastGap: a gap has at least 1 byte")
	}
	root := s.root()
	if root == nil {
		return fit(0, ^uint64(0), bounds, n)
	}
	all := summarize[V](root)
	if g, ok := fit(all.end, ^uint64(0), bounds, n); ok {
		return g, true
	}
	if g, ok := lastGap[V](root, bounds, n); ok {
		return g, true
	}
	return fit(0, all.start, bounds, n)
}

// fit clips the gap [lo, hi) to b and tells whether n bytes fit into what is
// left. n is not 0.
func fit(lo, hi uint64, b Range, n uint64) (Range, bool) {
	lo, hi = max(lo, b.Start), min(hi, b.End)
	if hi <= lo || hi-lo < n {
		return Range{}, false
	}
	return Range{lo, hi}, true
}

// firstGap looks for the gap among those between entries under nd.
//
// A child whose longest gap is long enough is searched in vain only if an edge
// of b cuts it, and each edge cuts at most one child of a level: so it looks
// into at most three nodes of each.
func firstGap[V any](nd *node, b Range, n uint64) (Range, bool) {
	if nd.level == 0 {
		l := asLeaf[V](nd)
		for i := max(1, endsLE(l.entries[:l.n], b.Start)); i < int(l.n) && l.entries[i-1].End < b.End; i++ {
			if g, ok := fit(l.entries[i-1].End, l.entries[i].Start, b, n); ok {
				return g, true
			}
		}
		return Range{}, false
	}
	in := asInner(nd)
	for i := countLE(in.ends[:in.n], b.Start); i < int(in.n); i++ {
		if i > 0 {
			if g, ok := fit(in.ends[i-1], in.starts[i], b, n); ok {
				return g, true
			}
		}
		if in.starts[i] >= b.End {
			break
		}
		if in.gaps[i] >= n {
			if g, ok := firstGap[V](in.kids[i], b, n); ok {
				return g, true
			}
		}
	}
	return Range{}, false
}

// lastGap is firstGap from the other end.
func lastGap[V any](nd *node, b Range, n uint64) (Range, bool) {
	if b.End == 0 {
		return Range{}, false
	}
	if nd.level == 0 {
		l := asLeaf[V](nd)
		for i := min(int(l.n)-1, startsLE(l.entries[:l.n], b.End-1)); i > 0 && l.entries[i].Start > b.Start; i-- {
			if g, ok := fit(l.entries[i-1].End, l.entries[i].Start, b, n); ok {
				return g, true
			}
		}
		return Range{}, false
	}
	in := asInner(nd)
	for i := countLE(in.starts[:in.n], b.End-1) - 1; i >= 0; i-- {
		if i+1 < int(in.n) {
			if g, ok := fit(in.ends[i], in.starts[i+1], b, n); ok {
				return g, true
			}
		}
		if in.ends[i] <= b.Start {
			break
		}
		if in.gaps[i] >= n {
			if g, ok := lastGap[V](in.kids[i], b, n); ok {
				return g, true
			}
		}
	}
	return Range{}, false
}
