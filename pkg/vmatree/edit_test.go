package vmatree

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const end = ^uint64(0) // of the address space

// A recorder is a policy that writes down what it is asked. Values are strings, and
// say where they come from: cutting "a" makes "a<" and ">a", merging "a" and "b"
// makes "(ab)".
type recorder struct {
	asked  []string
	refuse bool
}

func (p *recorder) Split(r Range, v string, at uint64) (left, right string) {
	p.asked = append(p.asked, fmt.Sprintf("split %v %s at %x", r, v, at))
	return v + "<", ">" + v
}

func (p *recorder) Merge(l Range, lv string, r Range, rv string) (string, bool) {
	p.asked = append(p.asked, fmt.Sprintf("merge %v %s, %v %s", l, lv, r, rv))
	return "(" + lv + rv + ")", !p.refuse
}

type stringTxn = Txn[string, int]

// with returns a transaction that holds entries, and its policy.
func with(entries ...Entry[string]) (*stringTxn, *recorder) {
	p := new(recorder)
	x := Snapshot[string, int]{}.Begin(p)
	for _, e := range entries {
		x.Insert(e.Range, e.Value)
	}
	return x, p
}

func at(start, end uint64, v string) Entry[string] {
	return Entry[string]{Range{start, end}, v}
}

// holds checks what x holds, and that nothing is wrong with it.
func holds(t *testing.T, x *stringTxn, want ...Entry[string]) {
	t.Helper()
	require.NoError(t, x.Check())
	var got []Entry[string]
	for r, v := range x.All() {
		got = append(got, Entry[string]{r, v})
	}
	require.Equal(t, want, got)
}

func contents(d Detached[string]) (entries []Entry[string]) {
	for i := range d.Len() {
		entries = append(entries, d.At(i))
	}
	return entries
}

func TestDetachAtEdges(t *testing.T) {
	a, b, c := at(0x10, 0x20, "a"), at(0x20, 0x30, "b"), at(0x40, 0x50, "c")
	for _, tc := range []struct {
		name  string
		r     Range
		out   []Entry[string]
		left  []Entry[string]
		asked []string
	}{
		{"empty range inside an entry", Range{0x18, 0x18}, nil, []Entry[string]{a, b, c}, nil},
		{"inverted range", Range{0x48, 0x18}, nil, []Entry[string]{a, b, c}, nil},
		{"below all", Range{0, 0x10}, nil, []Entry[string]{a, b, c}, nil},
		{"above all", Range{0x50, end}, nil, []Entry[string]{a, b, c}, nil},
		{"a hole", Range{0x30, 0x40}, nil, []Entry[string]{a, b, c}, nil},
		{"one whole entry", Range{0x20, 0x30}, []Entry[string]{b}, []Entry[string]{a, c}, nil},
		{"one whole entry and holes", Range{0x38, 0x58}, []Entry[string]{c}, []Entry[string]{a, b}, nil},
		{"all", Range{0, end}, []Entry[string]{a, b, c}, nil, nil},
		{
			//   old  |---a---|---b---|   |---c---|
			//   r        |-------|
			"across a seam", Range{0x18, 0x28},
			[]Entry[string]{at(0x18, 0x20, ">a"), at(0x20, 0x28, "b<")},
			[]Entry[string]{at(0x10, 0x18, "a<"), at(0x28, 0x30, ">b"), c},
			[]string{"split 10-20 a at 18", "split 20-30 b at 28"},
		},
		{
			//   old  |---a---|---b---|   |---c---|
			//   r                          |---|
			"the middle of one", Range{0x44, 0x48},
			[]Entry[string]{at(0x44, 0x48, ">c<")},
			[]Entry[string]{a, b, at(0x40, 0x44, "c<"), at(0x48, 0x50, ">>c")},
			[]string{"split 40-50 c at 44", "split 44-50 >c at 48"},
		},
		{
			"the start of one", Range{0x38, 0x48},
			[]Entry[string]{at(0x40, 0x48, "c<")},
			[]Entry[string]{a, b, at(0x48, 0x50, ">c")},
			[]string{"split 40-50 c at 48"},
		},
		{
			"the end of one", Range{0x48, 0x60},
			[]Entry[string]{at(0x48, 0x50, ">c")},
			[]Entry[string]{a, b, at(0x40, 0x48, "c<")},
			[]string{"split 40-50 c at 48"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x, p := with(a, b, c)
			d := x.Detach(tc.r)
			assert.Equal(t, tc.out, contents(d))
			assert.Equal(t, tc.asked, p.asked)
			holds(t, x, tc.left...)
			var sum uint64
			for _, e := range tc.out {
				sum += e.Len()
			}
			assert.Equal(t, sum, d.Covered())
			assert.Equal(t, len(tc.left), x.Len())
		})
	}
}

func TestDetachOfNothingCopiesNothing(t *testing.T) {
	x, _ := with(at(0x10, 0x20, "a"), at(0x30, 0x40, "b"))
	x.Freeze()
	root := x.now.root
	x.Detach(Range{0x20, 0x30})
	x.SplitAt(0x10)
	x.SplitAt(0x28)
	x.MergeWithin(Range{0, end})
	assert.Same(t, root, x.now.root)
}

func TestZeroDetachedIsEmpty(t *testing.T) {
	var d Detached[string]
	assert.Zero(t, d.Len())
	assert.Zero(t, d.Covered())
	for range d.All() {
		t.Error("the zero Detached has an entry")
	}
	assert.Panics(t, func() { d.At(0) })
	x, _ := with(at(1, 2, "a"), at(2, 3, "b"))
	d = x.Detach(Range{0, end})
	assert.Panics(t, func() { d.At(2) })
	assert.Panics(t, func() { d.At(-1) })
	n := 0
	for range d.All() {
		n++
		break
	}
	for r := range d.All() {
		if n++; r.Start == 2 {
			break
		}
	}
	assert.Equal(t, 3, n)
}

// Detach asks the policy in address order and cuts nothing else, however many
// leaves it goes through.
func TestDetachThroughManyLeaves(t *testing.T) {
	for _, n := range []int{1, leafMax, leafMax + 1, 20 * leafMax, 20 * leafMax * innerMax} {
		x, p := with()
		for i := range n {
			x.Insert(Range{uint64(i) * 10, uint64(i)*10 + 8}, "v")
		}
		frozen := x.Freeze()
		last := uint64(n-1) * 10
		d := x.Detach(Range{1, last + 7})
		require.Equal(t, n, d.Len())
		require.Equal(t, uint64(n*8-2), d.Covered())
		if n == 1 {
			require.Equal(t, []string{"split 0-8 v at 1", "split 1-8 >v at 7"}, p.asked)
			holds(t, x, at(0, 1, "v<"), at(7, 8, ">>v"))
			continue
		}
		require.Equal(t, []string{"split 0-8 v at 1", fmt.Sprintf("split %v v at %x", Range{last, last + 8}, last+7)}, p.asked)
		holds(t, x, at(0, 1, "v<"), at(last+7, last+8, ">v"))
		for i := 1; i < n-1; i++ {
			require.Equal(t, at(uint64(i)*10, uint64(i)*10+8, "v"), d.At(i))
		}
		require.Equal(t, n, frozen.Len())
		require.NoError(t, frozen.Check())
	}
}

func TestInsertMergedAsksLeftThenRight(t *testing.T) {
	a, c := at(0x10, 0x20, "a"), at(0x30, 0x40, "c")
	for _, tc := range []struct {
		name  string
		r     Range
		want  Entry[string]
		left  []Entry[string]
		asked []string
	}{
		{
			"both", Range{0x20, 0x30}, at(0x10, 0x40, "((ab)c)"), []Entry[string]{at(0x10, 0x40, "((ab)c)")},
			[]string{"merge 10-20 a, 20-30 b", "merge 10-30 (ab), 30-40 c"},
		},
		{
			"left", Range{0x20, 0x28}, at(0x10, 0x28, "(ab)"), []Entry[string]{at(0x10, 0x28, "(ab)"), c},
			[]string{"merge 10-20 a, 20-28 b"},
		},
		{
			"right", Range{0x28, 0x30}, at(0x28, 0x40, "(bc)"), []Entry[string]{a, at(0x28, 0x40, "(bc)")},
			[]string{"merge 28-30 b, 30-40 c"},
		},
		{"neither", Range{0x24, 0x28}, at(0x24, 0x28, "b"), []Entry[string]{a, at(0x24, 0x28, "b"), c}, nil},
		{
			"first", Range{0, 0x10}, at(0, 0x20, "(ba)"), []Entry[string]{at(0, 0x20, "(ba)"), c},
			[]string{"merge 0-10 b, 10-20 a"},
		},
		{
			"last", Range{0x40, end}, at(0x30, end, "(cb)"), []Entry[string]{a, at(0x30, end, "(cb)")},
			[]string{fmt.Sprintf("merge 30-40 c, 40-%x b", end)},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x, p := with(a, c)
			assert.Equal(t, tc.want, x.InsertMerged(tc.r, "b"))
			assert.Equal(t, tc.asked, p.asked)
			holds(t, x, tc.left...)
		})
	}
	t.Run("refused", func(t *testing.T) {
		x, p := with(a, c)
		p.refuse = true
		b := at(0x20, 0x30, "b")
		assert.Equal(t, b, x.InsertMerged(b.Range, "b"))
		assert.Equal(t, []string{"merge 10-20 a, 20-30 b", "merge 20-30 b, 30-40 c"}, p.asked)
		holds(t, x, a, b, c)
	})
}

// The neighbours of an entry may be in other leaves: fill each hole of a tree that
// has one between any two entries, in a copy of it.
func TestInsertMergedAcrossLeaves(t *testing.T) {
	const n = 3 * leafMax * innerMax / 2
	var tree Tree[string, int]
	x := tree.Begin(nil)
	for i := range uint64(n) {
		x.Insert(Range{i * 10, i*10 + 8}, "v")
	}
	s := tree.Commit(x)
	for i := range uint64(n - 1) {
		p := new(recorder)
		x := s.Begin(p)
		hole := Range{i*10 + 8, i*10 + 10}
		require.Equal(t, at(i*10, i*10+18, "((vb)v)"), x.InsertMerged(hole, "b"))
		require.Len(t, p.asked, 2)
		require.NoError(t, x.Check())
		require.Equal(t, n-1, x.Len())
		e, ok := x.Find(hole.Start)
		require.True(t, ok)
		require.Equal(t, at(i*10, i*10+18, "((vb)v)"), e)

		// The same in two steps.
		y := s.Begin(new(recorder))
		y.Insert(hole, "b")
		y.MergeWithin(hole)
		require.True(t, slices.Equal(all(x), all(y)), "at %v", hole)
	}
	require.NoError(t, s.Check())
	require.Equal(t, n, s.Len())
}

func all(x *stringTxn) (entries []Entry[string]) {
	for r, v := range x.All() {
		entries = append(entries, Entry[string]{r, v})
	}
	return entries
}

func TestMergeWithinAsksEachSeamOnce(t *testing.T) {
	abcde := []Entry[string]{at(0, 10, "a"), at(10, 20, "b"), at(20, 30, "c"), at(40, 50, "d"), at(50, 60, "e")}
	for _, tc := range []struct {
		name   string
		r      Range
		refuse bool
		left   []Entry[string]
		asked  []string
	}{
		{
			"both edges count", Range{10, 20}, false,
			[]Entry[string]{at(0, 30, "((ab)c)"), abcde[3], abcde[4]},
			[]string{"merge 0-a a, a-14 b", "merge 0-14 (ab), 14-1e c"},
		},
		{
			"one seam", Range{20, 20}, false,
			[]Entry[string]{abcde[0], at(10, 30, "(bc)"), abcde[3], abcde[4]},
			[]string{"merge a-14 b, 14-1e c"},
		},
		{"between seams", Range{11, 19}, false, abcde, nil},
		{"a hole is no seam", Range{30, 40}, false, abcde, nil},
		{"inverted", Range{20, 10}, false, abcde, nil},
		{
			"all", Range{0, end}, false,
			[]Entry[string]{at(0, 30, "((ab)c)"), at(40, 60, "(de)")},
			[]string{"merge 0-a a, a-14 b", "merge 0-14 (ab), 14-1e c", "merge 28-32 d, 32-3c e"},
		},
		{
			"all refused", Range{0, end}, true, abcde,
			[]string{"merge 0-a a, a-14 b", "merge a-14 b, 14-1e c", "merge 28-32 d, 32-3c e"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x, p := with(abcde...)
			p.refuse = tc.refuse
			x.MergeWithin(tc.r)
			assert.Equal(t, tc.asked, p.asked)
			holds(t, x, tc.left...)
		})
	}
}

// counts merges everything into the number of what was merged.
type counts struct{ refuseAt uint64 }

func (counts) Split(r Range, v int, at uint64) (left, right int) { return v, v }
func (p counts) Merge(l Range, lv int, r Range, rv int) (int, bool) {
	return lv + rv, l.End != p.refuseAt
}

func TestMergeAcrossManyNeighbours(t *testing.T) {
	for _, n := range []uint64{2, leafMax, leafMax + 1, 10000} {
		x := Snapshot[int, struct{}]{}.Begin(counts{refuseAt: 10 * (n / 2)})
		for i := range n {
			x.Insert(Range{i * 10, i*10 + 10}, 1)
		}
		s := x.Freeze()
		x.MergeWithin(Range{0, end})
		require.NoError(t, x.Check())
		require.Equal(t, 2, x.Len())
		c := x.First()
		require.Equal(t, Entry[int]{Range{0, 10 * (n / 2)}, int(n / 2)}, c.Entry())
		c.Next()
		require.Equal(t, Entry[int]{Range{10 * (n / 2), 10 * n}, int(n - n/2)}, c.Entry())
		require.Equal(t, int(n), s.Len())
		require.NoError(t, s.Check())

		// And apart again, where they were joined.
		for i := range n {
			x.SplitAt(i * 10)
			x.Update(i*10, 1)
		}
		require.NoError(t, x.Check())
		require.Equal(t, int(n), x.Len())
		next := uint64(0)
		for r, v := range x.All() {
			require.Equal(t, Range{next, next + 10}, r)
			require.Equal(t, 1, v)
			next += 10
		}
	}
}

func TestReplaceAsksLeftThenRight(t *testing.T) {
	abc := []Entry[string]{at(0, 10, "a"), at(10, 20, "b"), at(20, 30, "c")}
	for _, tc := range []struct {
		name   string
		r      Range
		refuse bool
		left   []Entry[string]
		asked  []string
	}{
		{
			"all of an entry", Range{10, 20}, false, []Entry[string]{at(0, 30, "((av)c)")},
			[]string{"merge 0-a a, a-14 v", "merge 0-14 (av), 14-1e c"},
		},
		{
			"its start", Range{10, 15}, false, []Entry[string]{at(0, 20, "((av)>b)"), abc[2]},
			[]string{"split a-14 b at f", "merge 0-a a, a-f v", "merge 0-f (av), f-14 >b"},
		},
		{
			"its end", Range{15, 20}, false, []Entry[string]{abc[0], at(10, 30, "((b<v)c)")},
			[]string{"split a-14 b at f", "merge a-f b<, f-14 v", "merge a-14 (b<v), 14-1e c"},
		},
		{
			"the middle", Range{12, 15}, false, []Entry[string]{abc[0], at(10, 20, "((b<v)>>b)"), abc[2]},
			[]string{"split a-14 b at c", "split c-14 >b at f", "merge a-c b<, c-f v", "merge a-f (b<v), f-14 >>b"},
		},
		{
			"all, refused", Range{10, 20}, true, []Entry[string]{abc[0], at(10, 20, "v"), abc[2]},
			[]string{"merge 0-a a, a-14 v", "merge a-14 v, 14-1e c"},
		},
		{
			"the start, refused", Range{10, 15}, true, []Entry[string]{abc[0], at(10, 15, "v"), at(15, 20, ">b"), abc[2]},
			[]string{"split a-14 b at f", "merge 0-a a, a-f v", "merge a-f v, f-14 >b"},
		},
		{
			"the end, refused", Range{15, 20}, true, []Entry[string]{abc[0], at(10, 15, "b<"), at(15, 20, "v"), abc[2]},
			[]string{"split a-14 b at f", "merge a-f b<, f-14 v", "merge f-14 v, 14-1e c"},
		},
		{
			"no neighbour before", Range{0, 10}, false, []Entry[string]{at(0, 20, "(vb)"), abc[2]},
			[]string{"merge 0-a v, a-14 b"},
		},
		{
			"no neighbour after", Range{20, 30}, false, []Entry[string]{abc[0], at(10, 30, "(bv)")},
			[]string{"merge a-14 b, 14-1e v"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x, p := with(abc...)
			p.refuse = tc.refuse
			x.Replace(tc.r, "v")
			assert.Equal(t, tc.asked, p.asked)
			holds(t, x, tc.left...)
		})
	}
}

// Neighbours may be in other leaves, and a leaf may be full: replace each entry of a large tree, and each part of one, in a copy of it.
func TestReplaceAcrossLeaves(t *testing.T) {
	const n = 2 * leafMax * innerMax
	var tree Tree[string, int]
	x := tree.Begin(nil)
	for i := range uint64(n) {
		x.Insert(Range{i * 10, i*10 + 10}, "v")
	}
	s := tree.Commit(x)
	for i := range uint64(n) {
		for _, r := range []Range{{i * 10, i*10 + 10}, {i * 10, i*10 + 4}, {i*10 + 4, i*10 + 10}, {i*10 + 4, i*10 + 6}} {
			for _, refuse := range []bool{false, true} {
				x, y := s.Begin(&recorder{refuse: refuse}), s.Begin(&recorder{refuse: refuse})
				x.Replace(r, "w")
				y.SplitAt(r.Start)
				y.SplitAt(r.End)
				y.Update(r.Start, "w")
				y.MergeWithin(r)
				require.NoError(t, x.Check())
				require.True(t, slices.Equal(all(y), all(x)), "at %v", r)
			}
		}
	}
	require.NoError(t, s.Check())
	require.Equal(t, n, s.Len())
}

func TestSplitAtOnlyStrictlyInside(t *testing.T) {
	a, b := at(0x10, 0x20, "a"), at(0x20, 0x30, "b")
	x, p := with(a, b)
	for _, addr := range []uint64{0, 0x10, 0x20, 0x30, 0x38, end} {
		x.SplitAt(addr)
	}
	assert.Empty(t, p.asked)
	holds(t, x, a, b)
	x.SplitAt(0x11)
	x.SplitAt(0x2f)
	assert.Equal(t, []string{"split 10-20 a at 11", "split 20-30 b at 2f"}, p.asked)
	holds(t, x, at(0x10, 0x11, "a<"), at(0x11, 0x20, ">a"), at(0x20, 0x2f, "b<"), at(0x2f, 0x30, ">b"))
}

func TestResizeUpToTheNeighbours(t *testing.T) {
	for _, n := range []int{1, 3, 3 * leafMax, 200 * leafMax} {
		x, p := with()
		for i := range uint64(n) {
			x.Insert(Range{i*10 + 3, i*10 + 7}, fmt.Sprint(i))
		}
		for i := range uint64(n) {
			old := x.Freeze()
			before := imprintOf(old)
			lo, hi := i*10, i*10+13
			if i == uint64(n)-1 {
				hi = end
			}
			// Everything before is at i*10 already.
			x.Resize(i*10+5, Range{lo, hi})
			x.Resize(lo, Range{hi - 1, hi})
			x.Resize(hi-1, Range{lo, i*10 + 10})
			if i%50 == 0 {
				require.NoError(t, x.Check())
			}
			require.Equal(t, before, imprintOf(old))
		}
		assert.Empty(t, p.asked)
		require.NoError(t, x.Check())
		require.Equal(t, uint64(n)*10, x.Covered(Range{0, end}))
		for i := range uint64(n) {
			e, ok := x.Find(i * 10)
			require.True(t, ok)
			require.Equal(t, at(i*10, i*10+10, fmt.Sprint(i)), e)
		}
	}
}

// imprintOf is a cheap imprint: the sums at the root.
func imprintOf(s Snapshot[string, int]) summary {
	return summarize[string](s.v.root)
}

func TestMetaGoesWithTheVersion(t *testing.T) {
	var tree Tree[string, int]
	assert.Zero(t, tree.Snapshot().Meta())
	x := tree.Begin(nil)
	x.SetMeta(1)
	one := x.Freeze()
	x.SetMeta(2)
	assert.Zero(t, tree.Snapshot().Meta(), "seen before the commit")
	two := tree.Commit(x)
	assert.Equal(t, []int{1, 2, 2}, []int{one.Meta(), two.Meta(), tree.Snapshot().Meta()})
	assert.Equal(t, 2, tree.Begin(nil).Meta())
	assert.Equal(t, 1, one.Begin(nil).Meta())
}

func TestSameIsTheVeryVersion(t *testing.T) {
	var tree Tree[string, int]
	zero := tree.Snapshot()
	assert.True(t, zero.Same(Snapshot[string, int]{}))
	one := tree.Commit(tree.Begin(nil))
	assert.False(t, one.Same(zero))
	assert.True(t, one.Same(tree.Snapshot()))
	two := tree.Commit(tree.Begin(nil))
	assert.False(t, two.Same(one), "equal contents")
	tree.Publish(one)
	assert.True(t, tree.Snapshot().Same(one))
	tree.Publish(zero)
	assert.True(t, tree.Snapshot().Same(zero))
}
