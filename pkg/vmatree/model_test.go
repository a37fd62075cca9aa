package vmatree

import (
	"fmt"
	"iter"
	"slices"
	"testing"
)

// A span is the value that the tests give to entries: the part of a line that
// begins off bytes into it and is as long as the entry. Two spans merge if
// they are parts of one line and the second begins where the first ends. So a
// part that was cut off and put in the wrong place is seen.
type span struct {
	line int
	off  uint64
}

// spans is the policy for them. It checks that it is asked what a Policy may be
// asked.
type spans struct {
	t testing.TB
}

func (p spans) Split(r Range, v *span, at uint64) (left, right *span) {
	if r.Start >= at || at >= r.End {
		p.t.Errorf("Split(%v, at %x): not strictly inside", r, at)
	}
	// New values both, so that the old one going on is seen, too.
	return &span{v.line, v.off}, &span{v.line, v.off + at - r.Start}
}

func (p spans) Merge(l Range, lv *span, r Range, rv *span) (*span, bool) {
	if l.Len() == 0 || r.Len() == 0 || l.End != r.Start {
		p.t.Errorf("Merge(%v, %v): do not touch", l, r)
	}
	if lv.line != rv.line || lv.off+l.Len() != rv.off {
		return nil, false
	}
	return &span{lv.line, lv.off}, true
}

// A model does what a Txn does, on a slice.
type model []Entry[span]

func (m model) clone() model { return slices.Clone(m) }

// at returns the index of the first entry with End > addr.
func (m model) at(addr uint64) int {
	i := slices.IndexFunc(m, func(e Entry[span]) bool { return e.End > addr })
	if i < 0 {
		return len(m)
	}
	return i
}

func (m *model) insert(r Range, v span) int {
	i := m.at(r.Start)
	*m = slices.Insert(*m, i, Entry[span]{r, v})
	return i
}

// merge merges entries i and i+1 if it may.
func (m *model) merge(i int) bool {
	if i < 0 || i+1 >= len(*m) {
		return false
	}
	a, b := (*m)[i], (*m)[i+1]
	if a.End != b.Start || a.Value.line != b.Value.line || a.Value.off+a.Len() != b.Value.off {
		return false
	}
	(*m)[i].End = b.End
	*m = slices.Delete(*m, i+1, i+2)
	return true
}

func (m *model) insertMerged(r Range, v span) Entry[span] {
	i := m.insert(r, v)
	if m.merge(i - 1) {
		i--
	}
	m.merge(i)
	return (*m)[i]
}

func (m *model) splitAt(addr uint64) {
	if i := m.at(addr); i < len(*m) && (*m)[i].Start < addr {
		right := (*m)[i]
		right.Value.off += addr - right.Start
		right.Start = addr
		(*m)[i].End = addr
		*m = slices.Insert(*m, i+1, right)
	}
}

func (m *model) detach(r Range) model {
	if r.Start >= r.End {
		return nil
	}
	m.splitAt(r.Start)
	m.splitAt(r.End)
	var in, out model
	for _, e := range *m {
		if e.Overlaps(r) {
			out = append(out, e)
		} else {
			in = append(in, e)
		}
	}
	*m = in
	return out
}

func (m *model) mergeWithin(r Range) {
	for i := 0; i+1 < len(*m); {
		if at := (*m)[i].End; at < r.Start || at > r.End || !m.merge(i) {
			i++
		}
	}
}

func (m model) covered(r Range) (n uint64) {
	for _, e := range m {
		n += e.Intersect(r).Len()
	}
	return n
}

// gaps returns all gaps inside b, clipped.
func (m model) gaps(b Range) (gaps []Range) {
	var last uint64
	for _, e := range append(m.clone(), Entry[span]{Range: Range{^uint64(0), ^uint64(0)}}) {
		if g := (Range{last, e.Start}).Intersect(b); g.Len() > 0 {
			gaps = append(gaps, g)
		}
		last = e.End
	}
	return gaps
}

// A view is what Snapshot and Txn have in common.
type view interface {
	Len() int
	Meta() int
	Find(addr uint64) (Entry[*span], bool)
	LowerBound(addr uint64) Cursor[*span]
	UpperBound(addr uint64) Cursor[*span]
	First() Cursor[*span]
	Last() Cursor[*span]
	Covered(r Range) uint64
	FirstGap(bounds Range, n uint64) (Range, bool)
	LastGap(bounds Range, n uint64) (Range, bool)
	All() iter.Seq2[Range, *span]
	Backward() iter.Seq2[Range, *span]
	Within(r Range) iter.Seq2[Range, *span]
	Check() error
}

func collect(seq iter.Seq2[Range, *span]) (m model) {
	for r, v := range seq {
		m = append(m, Entry[span]{r, *v})
	}
	return m
}

func reversed(m model) model {
	m = m.clone()
	slices.Reverse(m)
	return m
}

// differs compares v's iterators with m and returns a word on the first
// difference, "" if there is none.
func differs(v view, m model) string {
	if err := v.Check(); err != nil {
		return err.Error()
	}
	if v.Len() != len(m) {
		return fmt.Sprintf("Len is %d, want %d", v.Len(), len(m))
	}
	if got := collect(v.All()); !slices.Equal(got, m) {
		return fmt.Sprintf("All:\n got %v\nwant %v", got, m)
	}
	if got := reversed(collect(v.Backward())); !slices.Equal(got, m) {
		return fmt.Sprintf("Backward:\n got %v\nwant %v", got, m)
	}
	return ""
}

// differsAt compares the searches of v at one address, range and gap length.
func differsAt(v view, m model, addr uint64, r Range, n uint64) string {
	i := m.at(addr)
	e, ok := v.Find(addr)
	if want := i < len(m) && m[i].Contains(addr); ok != want {
		return fmt.Sprintf("Find(%x): %v, want %v", addr, ok, want)
	} else if ok && (e.Range != m[i].Range || *e.Value != m[i].Value) {
		return fmt.Sprintf("Find(%x) = %v", addr, e.Range)
	}

	var up, down model
	for c := v.LowerBound(addr); c.Valid() && len(up) < 70; c.Next() {
		up = append(up, Entry[span]{c.Range(), *c.Entry().Value})
	}
	if want := m[i:min(len(m), i+70)]; !slices.Equal(up, want) {
		return fmt.Sprintf("Next from LowerBound(%x):\n got %v\nwant %v", addr, up, want)
	}
	for c := v.UpperBound(addr); c.Valid() && len(down) < 70; c.Prev() {
		down = append(down, Entry[span]{c.Entry().Range, *c.Value()})
	}
	j := i
	if i < len(m) && m[i].Start <= addr {
		j++
	}
	if want := reversed(m[max(0, j-70):j]); !slices.Equal(down, want) {
		return fmt.Sprintf("Prev from UpperBound(%x):\n got %v\nwant %v", addr, down, want)
	}

	if got, want := v.Covered(r), m.covered(r); got != want {
		return fmt.Sprintf("Covered(%v) = %x, want %x", r, got, want)
	}
	var within model
	for _, e := range m {
		if e.Overlaps(r) {
			within = append(within, e)
		}
	}
	if got := collect(v.Within(r)); !slices.Equal(got, within) {
		return fmt.Sprintf("Within(%v):\n got %v\nwant %v", r, got, within)
	}

	var first, last Range
	for _, g := range m.gaps(r) {
		if g.Len() >= n {
			last = g
			if first.Len() == 0 {
				first = g
			}
		}
	}
	if got, ok := v.FirstGap(r, n); got != first || ok != (first.Len() > 0) {
		return fmt.Sprintf("FirstGap(%v, %x) = %v, %v, want %v", r, n, got, ok, first)
	}
	if got, ok := v.LastGap(r, n); got != last || ok != (last.Len() > 0) {
		return fmt.Sprintf("LastGap(%v, %x) = %v, %v, want %v", r, n, got, ok, last)
	}
	return ""
}
