package vmatree

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Overlaps are found wherever the other entry is: in the leaf, or in one of its
// neighbours. After the panic the transaction is as before, and its snapshots too.
func TestOverlapPanicsAndChangesNothing(t *testing.T) {
	for _, n := range []int{1, leafMax, leafMax + 1, 3 * leafMax * innerMax} {
		x, p := with()
		for i := range uint64(n) {
			x.Insert(Range{i*10 + 2, i*10 + 8}, "v")
		}
		s := x.Freeze()
		before := all(x)
		for i := range uint64(n) {
			if n > 1000 && i%7 != 0 {
				continue
			}
			lo, hi := i*10+2, i*10+8
			for _, r := range []Range{
				{lo, hi}, {lo, lo + 1}, {hi - 1, hi}, {lo + 2, hi - 2}, // inside
				{lo - 1, lo + 1}, {hi - 1, hi + 1}, {lo - 1, hi + 1}, // over an edge
				{0, lo + 1}, {0, end}, {hi - 1, end},
			} {
				require.Panics(t, func() { x.Insert(r, "w") }, "Insert(%v) over %x-%x", r, lo, hi)
				require.Panics(t, func() { x.InsertMerged(r, "w") }, "InsertMerged(%v)", r)
			}
			bad := []Range{{0, 0}, {lo, lo}, {hi, lo}}
			if i > 0 {
				bad = append(bad, Range{lo - 5, hi}, Range{lo - 5, lo - 4}, Range{0, 1}, Range{lo - 10, hi - 10})
			}
			if i+1 < uint64(n) {
				bad = append(bad, Range{lo, hi + 5}, Range{lo, end}, Range{hi + 8, hi + 9}, Range{lo + 10, hi + 10})
			}
			for _, r := range bad {
				require.Panics(t, func() { x.Resize(lo, r) }, "Resize(%x, %v)", lo, r)
			}
			for _, r := range []Range{{lo - 1, lo + 1}, {lo - 1, hi}, {hi - 1, hi + 1}, {lo, hi + 1}, {hi, hi + 1}, {lo, end}, {0, hi}} {
				require.Panics(t, func() { x.Replace(r, "w") }, "Replace(%v) over %x-%x", r, lo, hi)
			}
		}
		require.NoError(t, x.Check())
		require.Equal(t, before, all(x))
		require.Equal(t, n, s.Len())
		assert.Empty(t, p.asked, "the policy was asked")
	}
}

func TestEmptyRangePanics(t *testing.T) {
	x, _ := with(at(0x10, 0x20, "a"))
	for _, r := range []Range{{}, {5, 5}, {0x10, 0x10}, {0x18, 0x18}, {0x18, 0x11}, {0x20, 0x20}, {6, 5}, {end, end}, {end, 0}} {
		assert.Panics(t, func() { x.Insert(r, "b") }, "Insert(%v)", r)
		assert.Panics(t, func() { x.InsertMerged(r, "b") }, "InsertMerged(%v)", r)
		assert.Panics(t, func() { x.Resize(0x10, r) }, "Resize(%v)", r)
		assert.Panics(t, func() { x.Replace(r, "b") }, "Replace(%v)", r)
	}
	holds(t, x, at(0x10, 0x20, "a"))
}

func TestNoEntryPanics(t *testing.T) {
	x, _ := with()
	assert.Panics(t, func() { x.Update(0, "b") })
	assert.Panics(t, func() { x.Resize(0, Range{0, 1}) })
	x.Insert(Range{0x10, 0x20}, "a")
	for _, addr := range []uint64{0, 0xf, 0x20, end} {
		assert.Panics(t, func() { x.Update(addr, "b") }, "Update(%x)", addr)
		assert.Panics(t, func() { x.Resize(addr, Range{0, 1}) }, "Resize(%x)", addr)
	}
	holds(t, x, at(0x10, 0x20, "a"))
}

func TestGapOfNoBytesPanics(t *testing.T) {
	x, _ := with()
	assert.Panics(t, func() { x.FirstGap(Range{0, 10}, 0) })
	assert.Panics(t, func() { x.LastGap(Range{0, 10}, 0) })
}

func TestInvalidCursorPanicsAndStays(t *testing.T) {
	x, _ := with(at(0x10, 0x20, "a"), at(0x30, end, "b"))
	for name, c := range map[string]Cursor[string]{
		"zero":              {},
		"after the last":    x.LowerBound(end),
		"before the first":  x.UpperBound(0xf),
		"Next of the last":  func() Cursor[string] { c := x.Last(); c.Next(); return c }(),
		"Prev of the first": func() Cursor[string] { c := x.First(); c.Prev(); return c }(),
	} {
		require.False(t, c.Valid(), name)
		assert.Panics(t, func() { c.Range() }, name)
		assert.Panics(t, func() { c.Value() }, name)
		assert.Panics(t, func() { c.Entry() }, name)
		c.Next()
		assert.False(t, c.Valid(), name)
		c.Prev()
		assert.False(t, c.Valid(), name)
	}
}

func TestUseAfterCommitPanics(t *testing.T) {
	var tree Tree[string, int]
	x := tree.Begin(new(recorder))
	x.Insert(Range{1, 2}, "a")
	tree.Commit(x)
	for name, use := range map[string]func(){
		"Insert":       func() { x.Insert(Range{5, 6}, "b") },
		"InsertMerged": func() { x.InsertMerged(Range{5, 6}, "b") },
		"Detach":       func() { x.Detach(Range{}) },
		"Update":       func() { x.Update(1, "b") },
		"Replace":      func() { x.Replace(Range{1, 2}, "b") },
		"Resize":       func() { x.Resize(1, Range{1, 3}) },
		"SplitAt":      func() { x.SplitAt(1) },
		"MergeWithin":  func() { x.MergeWithin(Range{}) },
		"SetMeta":      func() { x.SetMeta(1) },
		"Freeze":       func() { x.Freeze() },
		"Commit":       func() { tree.Commit(x) },
		"Meta":         func() { x.Meta() },
		"Len":          func() { x.Len() },
		"Find":         func() { x.Find(1) },
		"LowerBound":   func() { x.LowerBound(1) },
		"UpperBound":   func() { x.UpperBound(1) },
		"First":        func() { x.First() },
		"Last":         func() { x.Last() },
		"Covered":      func() { x.Covered(Range{0, 9}) },
		"FirstGap":     func() { x.FirstGap(Range{0, 9}, 1) },
		"LastGap":      func() { x.LastGap(Range{0, 9}, 1) },
		"All":          func() { x.All()(func(Range, string) bool { return true }) },
		"Backward":     func() { x.Backward()(func(Range, string) bool { return true }) },
		"Within":       func() { x.Within(Range{0, 9})(func(Range, string) bool { return true }) },
		"Check":        func() { _ = x.Check() },
	} {
		assert.PanicsWithValue(t, "vmatree: use of a transaction after its Commit, or of a version that is used again", use, name)
	}
	assert.Equal(t, 1, tree.Snapshot().Len())
}

// A commit on anything but the version that the transaction began on is refused, and
// the transaction can go on.
func TestCommitOfAnOldTransactionPanics(t *testing.T) {
	var tree Tree[string, int]
	x, y := tree.Begin(nil), tree.Begin(nil)
	x.Insert(Range{1, 2}, "x")
	y.Insert(Range{1, 2}, "y")
	first := tree.Commit(x)
	require.Panics(t, func() { tree.Commit(y) })
	require.True(t, tree.Snapshot().Same(first))

	y.Insert(Range{3, 4}, "y")
	require.Panics(t, func() { tree.Commit(y) }, "a second time")
	require.Equal(t, 2, y.Len())

	// Publishing what it began on makes it good again.
	tree.Publish(Snapshot[string, int]{})
	tree.Commit(y)
	require.Equal(t, 2, tree.Snapshot().Len())
	require.Equal(t, 1, first.Len())

	// A transaction begun on a frozen state can be committed once that is published.
	z := tree.Begin(nil)
	z.Insert(Range{5, 6}, "z")
	frozen := z.Freeze()
	w := frozen.Begin(nil)
	w.Insert(Range{7, 8}, "w")
	require.Panics(t, func() { tree.Commit(w) })
	tree.Publish(frozen)
	require.Panics(t, func() { tree.Commit(z) }, "z began before the frozen state")
	tree.Commit(w)
	require.Equal(t, 4, tree.Snapshot().Len())
}

// fickle panics when it is asked for the nth time.
type fickle struct{ left int }

func (p *fickle) ask() {
	if p.left--; p.left < 0 {
		panic("fickle")
	}
}

func (p *fickle) Split(r Range, v int, at uint64) (left, right int) { p.ask(); return v, v }
func (p *fickle) Merge(l Range, lv int, r Range, rv int) (int, bool) {
	p.ask()
	return lv + rv, true
}

// A policy that panics leaves a tree that is right in itself.
func TestPanickingPolicyLeavesASoundTree(t *testing.T) {
	for name, edit := range map[string]func(x *Txn[int, struct{}]){
		"SplitAt":      func(x *Txn[int, struct{}]) { x.SplitAt(15) },
		"Detach":       func(x *Txn[int, struct{}]) { x.Detach(Range{15, 1995}) },
		"Detach one":   func(x *Txn[int, struct{}]) { x.Detach(Range{13, 17}) },
		"InsertMerged": func(x *Txn[int, struct{}]) { x.Detach(Range{500, 510}); x.InsertMerged(Range{500, 510}, 1) },
		"MergeWithin":  func(x *Txn[int, struct{}]) { x.MergeWithin(Range{0, 100}) },
		"Replace":      func(x *Txn[int, struct{}]) { x.Replace(Range{513, 520}, 2) },
		"Replace, in":  func(x *Txn[int, struct{}]) { x.Replace(Range{513, 517}, 2) },
	} {
		for asks := 0; ; asks++ {
			p := &fickle{left: asks}
			x := Snapshot[int, struct{}]{}.Begin(p)
			for i := range uint64(200) {
				x.Insert(Range{i * 10, i*10 + 10}, 1)
			}
			s := x.Freeze()
			panicked := func() (panicked bool) {
				defer func() { panicked = recover() != nil }()
				edit(x)
				return
			}()
			require.NoError(t, x.Check(), "%s after %d", name, asks)
			require.Equal(t, 200, s.Len())
			require.Equal(t, uint64(2000), s.Covered(Range{0, end}))
			if !panicked {
				require.Positive(t, asks, "%s does not ask", name)
				break
			}
		}
	}
}
