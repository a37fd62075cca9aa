// These tests claim that advice which is a property of a mapping splits it and merges it again, and shows
// in the VmFlags of smaps.
package madvise

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestAdviceIsAPropertyOfTheMapping(t *testing.T) {
	for _, c := range []struct {
		name    string
		advice  int
		flag    string
		opposed int
	}{
		{"RANDOM", unix.MADV_RANDOM, "rr", unix.MADV_NORMAL},
		{"SEQUENTIAL", unix.MADV_SEQUENTIAL, "sr", unix.MADV_NORMAL},
		{"DONTFORK", unix.MADV_DONTFORK, "dc", unix.MADV_DOFORK},
		{"DONTDUMP", unix.MADV_DONTDUMP, "dd", unix.MADV_DODUMP},
		{"WIPEONFORK", unix.MADV_WIPEONFORK, "wf", unix.MADV_KEEPONFORK},
		{"MERGEABLE", unix.MADV_MERGEABLE, "mg", unix.MADV_UNMERGEABLE},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 0, 4, kit.RW, 0)
			a.Fill(t, 0, 4, 1)
			mustAdvise(t, a, 1, 2, c.advice)
			split := flagged(t, a, kit.Me, c.flag)
			assert.Equal(t, "p0-p1, p1-p3 "+c.flag+", p3-p4", split)
			mustAdvise(t, a, 2, 2, c.advice)
			assert.Equal(t, "p0-p1, p1-p4 "+c.flag, flagged(t, a, kit.Me, c.flag))
			mustAdvise(t, a, 0, 4, c.opposed)
			assert.Equal(t, "p0-p4", flagged(t, a, kit.Me, c.flag))
			assert.Equal(t, "01 02 03 04", contents(a, kit.Me, 0, 4))
			kit.Say(t, "%s", split)
		})
	}
	t.Run("HUGEPAGE and NOHUGEPAGE", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 4, kit.RW, 0)
		mustAdvise(t, a, 0, 2, unix.MADV_HUGEPAGE)
		mustAdvise(t, a, 1, 2, unix.MADV_NOHUGEPAGE)
		found := flagged(t, a, kit.Me, "hg", "nh")
		assert.Equal(t, "p0-p1 hg, p1-p3 nh, p3-p4", found)
		kit.Say(t, "%s", found)
	})
}

func TestFlagsSurviveARemap(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 2, kit.RW, 0)
	mustAdvise(t, a, 0, 2, unix.MADV_DONTFORK)
	r := kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(4))
	require.True(t, r.OK(), r)
	assert.Equal(t, "p4-p6 dc", flagged(t, a, kit.Me, "dc"))
}

func TestFlagsAreNotThoseOfAReplacement(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	mustAdvise(t, a, 0, 4, unix.MADV_DONTFORK)
	a.Anon(t, 1, 2, kit.RW, 0)
	assert.Equal(t, "p0-p1 dc, p1-p3, p3-p4 dc", flagged(t, a, kit.Me, "dc"))
}

func TestFlagsAreSetAroundHoles(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 1, kit.RW, 0)
	a.Anon(t, 2, 2, kit.RW, 0)
	assert.Equal(t, unix.ENOMEM, advise(a, 0, 3, unix.MADV_DONTFORK))
	assert.Equal(t, "p0-p1 dc, p2-p3 dc, p3-p4", flagged(t, a, kit.Me, "dc"))
	kit.Say(t, "%s", flagged(t, a, kit.Me, "dc"))
}

func TestDontFork(t *testing.T) {
	t.Run("the child has a hole", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 4, kit.RW, 0)
		a.Fill(t, 0, 4, 1)
		mustAdvise(t, a, 1, 2, unix.MADV_DONTFORK)
		child := kit.Fork(t)
		assert.Equal(t, "01 SIGSEGV SIGSEGV 04", contents(a, child, 0, 4))
		assert.Equal(t, "01 02 03 04", contents(a, kit.Me, 0, 4))
		assert.Equal(t, []string{"p0-p1 rw-p 0", "p3-p4 rw-p 0"}, a.Layout(t, child))
	})
	t.Run("undone", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 4, kit.RW, 0)
		a.Fill(t, 0, 4, 1)
		mustAdvise(t, a, 0, 4, unix.MADV_DONTFORK)
		mustAdvise(t, a, 0, 4, unix.MADV_DOFORK)
		assert.Equal(t, "01 02 03 04", contents(a, kit.Fork(t), 0, 4))
	})
	t.Run("shared memory and files too", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 2, 0), 0)
		a.Map(t, 2, 2, kit.RW, unix.MAP_PRIVATE, diskFile(t), 0)
		mustAdvise(t, a, 0, 4, unix.MADV_DONTFORK)
		assert.Empty(t, a.Layout(t, kit.Fork(t)))
	})
}

func TestWipeOnFork(t *testing.T) {
	t.Run("the child has zeroes", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 4, kit.RW, 0)
		a.Fill(t, 0, 4, 1)
		mustAdvise(t, a, 1, 2, unix.MADV_WIPEONFORK)
		child := kit.Fork(t)
		assert.Equal(t, "01 00 00 04", contents(a, child, 0, 4))
		assert.Equal(t, "01 02 03 04", contents(a, kit.Me, 0, 4))
		require.False(t, child.Store(a.Page(1), 9).Faulted())
		assert.Equal(t, "01 00 00 04", contents(a, child.Fork(t), 0, 4), "the child's is wiped too")
	})
	t.Run("undone", func(t *testing.T) {
		a := kit.NewArena(t, 2)
		a.Anon(t, 0, 2, kit.RW, 0)
		a.Fill(t, 0, 2, 1)
		mustAdvise(t, a, 0, 2, unix.MADV_WIPEONFORK)
		mustAdvise(t, a, 0, 2, unix.MADV_KEEPONFORK)
		assert.Equal(t, "01 02", contents(a, kit.Fork(t), 0, 2))
	})
}
