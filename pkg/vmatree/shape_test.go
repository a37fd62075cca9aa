package vmatree

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestZeroValuesAreEmpty(t *testing.T) {
	var tree Tree[string, int]
	for name, v := range map[string]interface {
		Len() int
		Meta() int
		First() Cursor[string]
		Last() Cursor[string]
		Find(uint64) (Entry[string], bool)
		Covered(Range) uint64
		FirstGap(Range, uint64) (Range, bool)
		LastGap(Range, uint64) (Range, bool)
		Check() error
	}{
		"snapshot":    tree.Snapshot(),
		"transaction": tree.Begin(nil),
		"committed":   tree.Commit(tree.Begin(nil)),
	} {
		assert.Zero(t, v.Len(), name)
		assert.Zero(t, v.Meta(), name)
		c := v.First()
		assert.False(t, c.Valid(), name)
		c = v.Last()
		assert.False(t, c.Valid(), name)
		_, ok := v.Find(0)
		assert.False(t, ok, name)
		assert.Zero(t, v.Covered(Range{0, end}), name)
		g, ok := v.FirstGap(Range{5, 9}, 4)
		assert.True(t, ok && g == Range{5, 9}, name)
		g, ok = v.LastGap(Range{0, end}, end)
		assert.True(t, ok && g == Range{0, end}, name)
		_, ok = v.LastGap(Range{5, 9}, 5)
		assert.False(t, ok, name)
		_, ok = v.FirstGap(Range{9, 5}, 1)
		assert.False(t, ok, name)
		assert.NoError(t, v.Check(), name)
	}
}

// The first and the last address that a range can have.
func TestEdgesOfTheAddressSpace(t *testing.T) {
	whole := at(0, end, "w")
	x, _ := with(whole)
	holds(t, x, whole)
	assert.Equal(t, end, x.Covered(Range{0, end}))
	_, ok := x.FirstGap(Range{0, end}, 1)
	assert.False(t, ok)
	_, ok = x.LastGap(Range{0, end}, 1)
	assert.False(t, ok)
	_, ok = x.Find(end)
	assert.False(t, ok, "the last address is in no range")
	e, ok := x.Find(end - 1)
	assert.True(t, ok && e == whole)

	d := x.Detach(Range{1, end - 1})
	assert.Equal(t, []Entry[string]{at(1, end-1, ">w<")}, contents(d))
	holds(t, x, at(0, 1, "w<"), at(end-1, end, ">>w"))
	g, ok := x.FirstGap(Range{0, end}, end-2)
	assert.True(t, ok && g == Range{1, end - 1})
	g, ok = x.LastGap(Range{0, end}, end-2)
	assert.True(t, ok && g == Range{1, end - 1})
	assert.Equal(t, uint64(2), x.Covered(Range{0, end}))

	c := x.Last()
	require.True(t, c.Valid())
	assert.Equal(t, Range{end - 1, end}, c.Range())
	c.Prev()
	assert.Equal(t, Range{0, 1}, c.Range())
	c.Prev()
	assert.False(t, c.Valid())

	x.InsertMerged(Range{1, end - 1}, "m")
	holds(t, x, at(0, end, "((w<m)>>w)"))
	assert.Equal(t, []Entry[string]{at(0, end, "((w<m)>>w)")}, contents(x.Detach(Range{0, end})))
	holds(t, x)
}

// orders are ways to fill a tree.
var orders = map[string]func(t *testing.T, n int) []int{
	"ascending":  func(_ *testing.T, n int) []int { return ascending(n) },
	"descending": func(_ *testing.T, n int) []int { return descending(n) },
	"random":     func(t *testing.T, n int) []int { return random(t).Perm(n) },
	"inwards": func(_ *testing.T, n int) (order []int) {
		for i := range n {
			if i%2 == 0 {
				order = append(order, i/2)
			} else {
				order = append(order, n-1-i/2)
			}
		}
		return order
	},
}

func ascending(n int) (order []int) {
	for i := range n {
		order = append(order, i)
	}
	return order
}

func descending(n int) (order []int) {
	for i := range n {
		order = append(order, n-1-i)
	}
	return order
}

// A tree is filled in each order and emptied in each order, and filled again: it is
// right all the way, and ends as it began. Big enough for four levels.
func TestFilledAndEmptiedInEachOrder(t *testing.T) {
	n := 12000
	if raceEnabled {
		n = 5000
	}
	// i*10+2 to i*10+8, and a gap of 4 between two.
	rangeOf := func(i int) Range { return Range{uint64(i)*10 + 2, uint64(i)*10 + 8} }
	for in, fill := range orders {
		for out, drain := range orders {
			t.Run(in+" in, "+out+" out", func(t *testing.T) {
				x := benchSnapshot{}.Begin(nil)
				for round := range 2 {
					for k, i := range fill(t, n) {
						x.Insert(rangeOf(i), benchValue)
						if k%997 == 0 {
							require.NoError(t, x.Check(), "%d entries", k+1)
						}
					}
					require.NoError(t, x.Check())
					require.Equal(t, n, x.Len())
					require.Equal(t, uint64(n)*6, x.Covered(Range{0, end}))
					_, ok := x.FirstGap(Range{2, uint64(n) * 10}, 5)
					require.False(t, ok)
					g, ok := x.LastGap(Range{2, uint64(n)*10 - 10}, 4)
					require.True(t, ok && g == Range{uint64(n)*10 - 22, uint64(n)*10 - 18}, "%v", g)

					for k, i := range drain(t, n) {
						d := x.Detach(rangeOf(i))
						require.Equal(t, 1, d.Len())
						if k%997 == 0 {
							require.NoError(t, x.Check(), "%d entries", n-k-1)
						}
					}
					require.NoError(t, x.Check())
					require.Zero(t, x.Len())
					require.Nil(t, x.now.root, "round %d: an empty tree has no nodes", round)
				}
			})
		}
	}
}

// Filled in address order, upwards or downwards, leaves are kept full: such trees are
// what programs build that map one thing after another.
func TestSequentialFillIsDense(t *testing.T) {
	for _, name := range []string{"ascending", "descending"} {
		x := benchSnapshot{}.Begin(nil)
		const n = 10000
		for _, i := range orders[name](t, n) {
			x.Insert(Range{uint64(i) * 10, uint64(i)*10 + 5}, benchValue)
		}
		leaves := countLeaves(x.now.root)
		assert.LessOrEqual(t, leaves, n/(leafMax-leafMin)+2, name)
	}
}

func countLeaves(n *node) int {
	if n.level == 0 {
		return 1
	}
	sum := 0
	for _, k := range asInner(n).kids[:n.n] {
		sum += countLeaves(k)
	}
	return sum
}

// Check finds what it says it finds: each invariant is broken by hand.
func TestCheckFindsEachBrokenInvariant(t *testing.T) {
	for name, breaks := range map[string]func(x *benchTxn){
		"order":               func(x *benchTxn) { l := someLeaf(x); l.entries[1], l.entries[2] = l.entries[2], l.entries[1] },
		"disjointness":        func(x *benchTxn) { l := someLeaf(x); l.entries[1].End = l.entries[2].Start + 1 },
		"empty range":         func(x *benchTxn) { l := someLeaf(x); l.entries[1].End = l.entries[1].Start },
		"separator start":     func(x *benchTxn) { asInner(x.now.root).starts[1]-- },
		"separator end":       func(x *benchTxn) { asInner(x.now.root).ends[1]++ },
		"gap":                 func(x *benchTxn) { asInner(x.now.root).gaps[1]++ },
		"gap, deep":           func(x *benchTxn) { asInner(asInner(x.now.root).kids[1]).gaps[1]-- },
		"covered":             func(x *benchTxn) { asInner(x.now.root).covered[0]-- },
		"fill of a leaf":      func(x *benchTxn) { someLeaf(x).n = leafMin - 1 },
		"fill of an inner":    func(x *benchTxn) { asInner(x.now.root).kids[0].n = innerMin - 1 },
		"fill of the root":    func(x *benchTxn) { x.now.root.n = 1 },
		"too full":            func(x *benchTxn) { someLeaf(x).n = leafMax + 1 },
		"empty":               func(x *benchTxn) { someLeaf(x).n = 0 },
		"depth":               func(x *benchTxn) { in := asInner(x.now.root); in.kids[0] = asInner(in.kids[0]).kids[0] },
		"no child":            func(x *benchTxn) { asInner(x.now.root).kids[0] = nil },
		"child in unused":     func(x *benchTxn) { in := asInner(x.now.root); in.kids[in.n] = in.kids[0] },
		"entry in unused":     func(x *benchTxn) { l := someLeaf(x); l.entries[l.n] = l.entries[0] },
		"count":               func(x *benchTxn) { x.now.count++ },
		"count without root":  func(x *benchTxn) { x.now.root = nil },
		"owner":               func(x *benchTxn) { someLeaf(x).owner = newOwner() },
		"start before before": func(x *benchTxn) { someLeaf(x).entries[0].Start = 0 },
	} {
		x := benchSnapshot{}.Begin(nil)
		for i := range uint64(leafMax * innerMax * 2) {
			x.Insert(Range{i*20 + 10, i*20 + 15 + i%5}, benchValue)
		}
		require.NoError(t, x.Check())
		require.Equal(t, uint16(2), x.now.root.level)
		breaks(x)
		if assert.Error(t, x.Check(), name) {
			t.Logf("%s: %v", name, x.Check())
		}
	}
}

// someLeaf returns a leaf that is not the first.
func someLeaf(x *benchTxn) *leaf[*int] {
	return asLeaf[*int](asInner(asInner(x.now.root).kids[1]).kids[1])
}

func TestRange(t *testing.T) {
	r := Range{10, 20}
	assert.Equal(t, uint64(10), r.Len())
	assert.Zero(t, Range{20, 10}.Len())
	assert.Zero(t, Range{10, 10}.Len())
	assert.Equal(t, end, Range{0, end}.Len())

	for addr, in := range map[uint64]bool{9: false, 10: true, 19: true, 20: false, 0: false, end: false} {
		assert.Equal(t, in, r.Contains(addr), addr)
	}
	assert.False(t, Range{0, end}.Contains(end))

	for o, common := range map[Range]Range{
		{0, end}:  r,
		{10, 20}:  r,
		{12, 15}:  {12, 15},
		{5, 11}:   {10, 11},
		{19, 30}:  {19, 20},
		{0, 10}:   {},
		{20, 30}:  {},
		{12, 12}:  {},
		{15, 12}:  {},
		{100, 50}: {},
	} {
		assert.Equal(t, common.Len() > 0, r.Overlaps(o), "%v", o)
		assert.Equal(t, common.Len() > 0, o.Overlaps(r), "%v", o)
		got := r.Intersect(o)
		assert.Equal(t, common.Len(), got.Len(), "%v", o)
		if common.Len() > 0 {
			assert.Equal(t, common, got)
			assert.Equal(t, common, o.Intersect(r))
		}
	}
	assert.Equal(t, "7f0000001000-7f0000002000", Range{0x7f0000001000, 0x7f0000002000}.String())
}

// An iterator that is left early stops at once, in every leaf.
func TestIteratorsStopWhenLeft(t *testing.T) {
	const n = 2 * leafMax * innerMax
	x := benchSnapshot{}.Begin(nil)
	for i := range uint64(n) {
		x.Insert(Range{i * 10, i*10 + 5}, benchValue)
	}
	for stop := 1; stop <= n; stop += 5 {
		i := 0
		for r := range x.All() {
			if r.Start != uint64(i)*10 {
				t.Fatalf("All: entry %d is %v", i, r)
			}
			if i++; i == stop {
				break
			}
		}
		require.Equal(t, stop, i)
		for r := range x.Backward() {
			if r.Start != uint64(n-1-stop+i)*10 {
				t.Fatalf("Backward: %v", r)
			}
			if i--; i == 0 {
				break
			}
		}
		require.Zero(t, i)
		for r := range x.Within(Range{uint64(stop-1)*10 + 4, end}) {
			i++
			require.Equal(t, uint64(stop-1)*10, r.Start)
			break
		}
		require.Equal(t, 1, i)
	}
}
