package vmatree

import (
	"cmp"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// A span is the value that the tests give to entries: a line of which an entry
// shows a part. The byte at address a of an entry is byte a-delta of the line.
// So a tree of spans says for each address which byte is there, however the
// entries are cut and merged, and two entries merge if they show touching parts
// of one line.
type span struct {
	line  int
	delta uint64 // of the address
}

// spans is the policy for them. It checks that it is asked what a Policy may be
// asked, and records the questions.
type spans struct {
	t      testing.TB
	splits []uint64
	merges []uint64 // the addresses where the two touch
	refuse func(at uint64) bool
}

func (p *spans) Split(r Range, v *span, at uint64) (left, right *span) {
	if r.Start >= at || at >= r.End {
		p.t.Fatalf("Split(%v, at %x): not strictly inside", r, at)
	}
	p.splits = append(p.splits, at)
	// New values, so that a test sees which one went where.
	l, rr := *v, *v
	return &l, &rr
}

func (p *spans) Merge(l Range, lv *span, r Range, rv *span) (*span, bool) {
	if l.Len() == 0 || r.Len() == 0 || l.End != r.Start {
		p.t.Fatalf("Merge(%v, %v): do not touch", l, r)
	}
	p.merges = append(p.merges, l.End)
	if p.refuse != nil && p.refuse(l.End) || *lv != *rv {
		return nil, false
	}
	m := *lv
	return &m, true
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

func (m model) free(r Range) bool {
	return !slices.ContainsFunc(m, func(e Entry[span]) bool { return e.Overlaps(r) })
}

// merge merges entries i and i+1 if it may.
func (m *model) merge(i int, refuse func(uint64) bool) bool {
	if i < 0 || i+1 >= len(*m) {
		return false
	}
	a, b := (*m)[i], (*m)[i+1]
	if a.End != b.Start || a.Value != b.Value || refuse != nil && refuse(a.End) {
		return false
	}
	(*m)[i].End = b.End
	*m = slices.Delete(*m, i+1, i+2)
	return true
}

func (m *model) insertMerged(r Range, v span, refuse func(uint64) bool) Entry[span] {
	i := m.insert(r, v)
	if m.merge(i-1, refuse) {
		i--
	}
	m.merge(i, refuse)
	return (*m)[i]
}

func (m *model) splitAt(addr uint64) {
	if i := m.at(addr); i < len(*m) && (*m)[i].Start < addr {
		e := (*m)[i]
		(*m)[i].Start = addr
		e.End = addr
		*m = slices.Insert(*m, i, e)
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

func (m *model) mergeWithin(r Range, refuse func(uint64) bool) {
	for i := 0; i+1 < len(*m); {
		if at := (*m)[i].End; at < r.Start || at > r.End || !m.merge(i, refuse) {
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

// A machine edits a Txn and a model side by side, as numbers from a source tell
// it.
type machine struct {
	t      testing.TB
	next   func(n uint64) uint64 // a number below n
	space  uint64                // addresses are below it
	tree   Tree[*span, int]
	policy *spans
	x      *Txn[*span, int]
	m      model
	meta   int
	base   model // of x
	log    []string
}

func newMachine(t testing.TB, space uint64, next func(n uint64) uint64) *machine {
	k := &machine{t: t, next: next, space: space, policy: &spans{t: t}}
	k.x = k.tree.Begin(k.policy)
	return k
}

func (k *machine) addr() uint64 {
	a := k.next(k.space)
	if k.next(64) == 0 {
		// The edges of the address space are at the edges of the tests' too.
		a = []uint64{0, 1, k.space - 1, k.space}[k.next(4)]
	}
	// Edges of entries are where it matters.
	if n := len(k.m); n > 0 && k.next(2) == 0 {
		e := k.m[k.next(uint64(n))]
		a = []uint64{e.Start, e.End}[k.next(2)]
	}
	if k.space == ^uint64(0) && k.next(8) == 0 {
		a = ^uint64(0) - k.next(100)
	}
	return a
}

// reach returns a range that begins anywhere and is usually short.
func (k *machine) reach() Range {
	a := k.addr()
	n := k.next(1 + k.space/64)
	if k.next(20) == 0 {
		n = k.next(k.space)
	}
	if a > k.space-n {
		return Range{k.space - n, k.space}
	}
	return Range{a, a + n}
}

// hole returns a free range, if it finds one.
func (k *machine) hole() (Range, bool) {
	gaps := k.m.gaps(Range{0, k.space})
	if len(gaps) == 0 {
		return Range{}, false
	}
	g := gaps[k.next(uint64(len(gaps)))]
	n := 1 + k.next(min(g.Len(), 1+k.space/128))
	switch k.next(3) {
	case 0: // touches the entry before
		return Range{g.Start, g.Start + n}, true
	case 1: // and the one after
		return Range{g.End - n, g.End}, true
	}
	a := g.Start + k.next(g.Len()-n+1)
	return Range{a, a + n}, true
}

func (k *machine) value() (*span, span) {
	v := span{line: int(k.next(3))}
	w := v
	return &w, v
}

// step makes one random edit, and names it.
func (k *machine) step() string {
	p, v := k.value()
	switch op := k.next(16); op {
	case 0, 1, 2, 3, 4:
		r, ok := k.hole()
		if !ok {
			return "no hole"
		}
		k.x.Insert(r, p)
		k.m.insert(r, v)
		return fmt.Sprintf("Insert(%v)", r)
	case 5, 6, 7:
		r, ok := k.hole()
		if !ok {
			return "no hole"
		}
		got := k.x.InsertMerged(r, p)
		want := k.m.insertMerged(r, v, k.policy.refuse)
		if got.Range != want.Range || *got.Value != want.Value {
			k.t.Fatalf("InsertMerged(%v) = %v, want %v", r, got.Range, want.Range)
		}
		return fmt.Sprintf("InsertMerged(%v)", r)
	case 8, 9:
		return k.detach(k.reach())
	case 10:
		r := k.reach()
		k.x.MergeWithin(r)
		k.m.mergeWithin(r, k.policy.refuse)
		return fmt.Sprintf("MergeWithin(%v)", r)
	case 11:
		a := k.addr()
		k.x.SplitAt(a)
		k.m.splitAt(a)
		return fmt.Sprintf("SplitAt(%x)", a)
	case 12, 13:
		i := k.m.at(k.addr())
		if i == len(k.m) {
			return "no entry"
		}
		e := &k.m[i]
		a := e.Start + k.next(e.Len())
		if op == 12 {
			k.x.Update(a, p)
			e.Value = v
			return fmt.Sprintf("Update(%x)", a)
		}
		return k.resize(i, a)
	case 14:
		k.meta++
		k.x.SetMeta(k.meta)
		return "SetMeta"
	}
	return k.turn()
}

func (k *machine) detach(r Range) string {
	got, want := k.x.Detach(r), k.m.detach(r)
	if got.Len() != len(want) || got.Covered() != want.covered(r) {
		k.t.Fatalf("Detach(%v): %d entries with %x bytes, want %v", r, got.Len(), got.Covered(), want)
	}
	if all := collect(got.All()); !slices.Equal(all, want) {
		k.t.Fatalf("Detach(%v):\n got %v\nwant %v", r, all, want)
	}
	for i := range want {
		if e := got.At(i); e.Range != want[i].Range || *e.Value != want[i].Value {
			k.t.Fatalf("Detach(%v).At(%d) = %v, want %v", r, i, e.Range, want[i].Range)
		}
	}
	return fmt.Sprintf("Detach(%v)", r)
}

// resize gives entry i of the model, which contains a, a random new range.
func (k *machine) resize(i int, a uint64) string {
	lo, hi := uint64(0), k.space
	if i > 0 {
		lo = k.m[i-1].End
	}
	if i+1 < len(k.m) {
		hi = k.m[i+1].Start
	}
	r := Range{lo + k.next(hi-lo), hi}
	if n := min(hi-r.Start, 1+k.space/128); k.next(4) > 0 {
		r.End = r.Start + 1 + k.next(n)
	}
	k.x.Resize(a, r)
	k.m[i].Range = r
	return fmt.Sprintf("Resize(%x, %v)", a, r)
}

// turn freezes, commits or drops the transaction.
func (k *machine) turn() string {
	switch k.next(4) {
	case 0:
		k.x.Freeze()
		return "Freeze"
	case 1:
		// Seldom, or nothing ever grows.
		if k.next(8) > 0 {
			return "nothing"
		}
		k.x = k.tree.Begin(k.policy)
		k.m = k.base.clone()
		k.meta = k.x.Meta()
		return "drop"
	}
	k.tree.Commit(k.x)
	k.base = k.m.clone()
	k.x = k.tree.Begin(k.policy)
	return "Commit"
}

// check compares everything.
func (k *machine) check() string {
	if k.x.Meta() != k.meta {
		return fmt.Sprintf("Meta is %d, want %d", k.x.Meta(), k.meta)
	}
	if d := differs(k.x, k.m); d != "" {
		return d
	}
	for range 3 {
		a, r := k.addr(), k.reach()
		if k.next(8) == 0 {
			r = Range{0, ^uint64(0)}
		}
		n := 1 + k.next(1+k.space/64)
		if gaps := k.m.gaps(r); len(gaps) > 0 && k.next(2) == 0 {
			// Just about what there is.
			n = max(1, gaps[k.next(uint64(len(gaps)))].Len()+k.next(2))
		}
		if d := differsAt(k.x, k.m, a, r, n); d != "" {
			return d
		}
	}
	return ""
}

// run makes and checks steps, and stops the test at the first that went wrong.
func (k *machine) run(steps int) {
	for i := range steps {
		k.log = append(k.log, k.step())
		if d := k.check(); d != "" {
			k.t.Fatalf("step %d: %s:\n%s", i, k.log[len(k.log)-1], d)
		}
	}
}

func TestModelBasic(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		space := []uint64{200, 5000, 1 << 47, ^uint64(0)}[seed%4]
		k := newMachine(t, space, rnd.Uint64N)
		k.run(1500)
		require.Equal(t, 0, cmp.Compare(k.x.Len(), len(k.m)))
	}
}
