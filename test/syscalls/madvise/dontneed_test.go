// These tests claim what MADV_DONTNEED leaves of the contents: zeroes of private memory, the file of a private
// file mapping, and all of what is shared.
package madvise

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestDontNeedContents(t *testing.T) {
	memfd := func(t *testing.T) int { return kit.Memfd(t, 4, 0) }
	for _, c := range []struct {
		name  string
		flags int
		file  func(t *testing.T) int
		after string // of four pages filled with 1 to 4, of which the middle two are not needed
	}{
		{"anonymous", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil, "01 00 00 04"},
		{"shared anonymous", unix.MAP_SHARED | unix.MAP_ANONYMOUS, nil, "01 02 03 04"},
		{"private file", unix.MAP_PRIVATE, diskFile, "01 42 43 04"},
		{"shared file", unix.MAP_SHARED, diskFile, "01 02 03 04"},
		{"private memfd", unix.MAP_PRIVATE, memfd, "01 42 43 04"},
		{"shared memfd", unix.MAP_SHARED, memfd, "01 02 03 04"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			fd := -1
			if c.file != nil {
				fd = c.file(t)
			}
			a.Map(t, 0, 4, kit.RW, c.flags, fd, 0)
			a.Fill(t, 0, 4, 1)
			mustAdvise(t, a, 1, 2, unix.MADV_DONTNEED)
			assert.Equal(t, c.after, contents(a, kit.Me, 0, 4))
			assert.Len(t, a.Maps(t, kit.Me), 1, "the mapping is one still")
			kit.Say(t, "%s", contents(a, kit.Me, 0, 4))
			a.Fill(t, 0, 4, 0x10)
			assert.Equal(t, "10 11 12 13", contents(a, kit.Me, 0, 4))
		})
	}
}

func TestDontNeedReadsTheFileAnew(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, kit.RW, unix.MAP_PRIVATE, fd, 0)
		a.Fill(t, 0, 2, 1)
		_, err := unix.Pwrite(fd, []byte("z"), 0)
		require.NoError(t, err)
		assert.Equal(t, "01 02", contents(a, kit.Me, 0, 2))
		mustAdvise(t, a, 0, 2, unix.MADV_DONTNEED)
		assert.Equal(t, "7a 42", contents(a, kit.Me, 0, 2))
	})
}

func TestDontNeedWithoutAccess(t *testing.T) {
	for _, c := range []struct {
		name string
		prot int
	}{{"read only", unix.PROT_READ}, {"no access", unix.PROT_NONE}} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			a.Anon(t, 0, 2, kit.RW, 0)
			a.Fill(t, 0, 2, 1)
			require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(2), c.prot))
			mustAdvise(t, a, 0, 1, unix.MADV_DONTNEED)
			require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(2), kit.RW))
			assert.Equal(t, "00 02", contents(a, kit.Me, 0, 2))
		})
	}
}

func TestDontNeedRoundsLengthUp(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Anon(t, 0, 3, kit.RW, 0)
	a.Fill(t, 0, 3, 1)
	require.Zero(t, kit.Me.Madvise(a.Page(0), kit.Len(1)+1, unix.MADV_DONTNEED))
	assert.Equal(t, "00 00 03", contents(a, kit.Me, 0, 3))
}

func TestDontNeedStopsAtLockedMemory(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 6, kit.RW, 0)
	a.Fill(t, 0, 6, 1)
	require.Zero(t, kit.Me.Mlock(a.Page(2), kit.Len(2)))
	assert.Equal(t, unix.EINVAL, advise(a, 0, 6, unix.MADV_DONTNEED))
	assert.Equal(t, "00 00 03 04 05 06", contents(a, kit.Me, 0, 6))
	kit.Say(t, "%s", contents(a, kit.Me, 0, 6))
}

func TestDontNeedLocked(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, unix.MAP_LOCKED)
	a.Fill(t, 0, 4, 1)
	mustAdvise(t, a, 1, 2, unix.MADV_DONTNEED_LOCKED)
	assert.Equal(t, "01 00 00 04", contents(a, kit.Me, 0, 4))
	assert.Equal(t, "p0-p4 lo", flagged(t, a, kit.Me, "lo"))
	kit.Say(t, "%s", contents(a, kit.Me, 0, 4))
}

// What processes share until one of them writes is given up by one of them only.
func TestDontNeedIsForOneProcess(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 1)
	child := kit.Fork(t)
	mustAdvise(t, a, 0, 2, unix.MADV_DONTNEED)
	require.Zero(t, child.Madvise(a.Page(1), kit.Len(2), unix.MADV_DONTNEED))
	assert.Equal(t, "00 00 03 04", contents(a, kit.Me, 0, 4))
	assert.Equal(t, "01 00 00 04", contents(a, child, 0, 4))
	kit.Say(t, "parent %s, child %s", contents(a, kit.Me, 0, 4), contents(a, child, 0, 4))
}

func TestDontNeedFreesMemory(t *testing.T) {
	const pages = 4096 // enough that what is allocated ahead makes no difference
	a := kit.NewArena(t, pages)
	a.Anon(t, 0, pages, kit.RW, 0)
	require.Zero(t, advise(a, 0, pages, unix.MADV_NOHUGEPAGE))
	a.Fill(t, 0, pages, 1)
	require.Zero(t, advise(a, 0, pages, unix.MADV_DONTNEED))
	assert.Equal(t, "0 kB", a.Smaps(t, kit.Me)[0]["Rss"])
	assert.Equal(t, "00", contents(a, kit.Me, pages/2, 1))
}

func TestDontNeedInPartOfAHugePage(t *testing.T) {
	const huge = kit.HugeSize / 4096
	if kit.PageSize != 4096 {
		t.Skip("pages of another size")
	}
	a := kit.NewArena(t, 2*huge)
	a.Anon(t, 0, 2*huge, kit.RW, 0)
	require.Zero(t, advise(a, 0, 2*huge, unix.MADV_HUGEPAGE))
	for i := range 2 * huge {
		require.False(t, kit.Me.Store(a.Page(i), 7).Faulted())
	}
	mustAdvise(t, a, 3, huge, unix.MADV_DONTNEED)
	for i := range 2 * huge {
		want := uint64(7)
		if i >= 3 && i < 3+huge {
			want = 0
		}
		require.Equal(t, want, kit.Me.Load(a.Page(i)).Value, "page %d", i)
	}
}

func TestHole(t *testing.T) {
	for _, c := range []struct {
		name   string
		advice int
		after  string
	}{
		{"DONTNEED", unix.MADV_DONTNEED, "00 00 SIGSEGV 00 00"},
		{"DONTNEED_LOCKED", unix.MADV_DONTNEED_LOCKED, "00 00 SIGSEGV 00 00"},
		{"NORMAL", unix.MADV_NORMAL, "01 02 SIGSEGV 04 05"},
		{"WILLNEED", unix.MADV_WILLNEED, "01 02 SIGSEGV 04 05"},
		{"COLD", unix.MADV_COLD, "01 02 SIGSEGV 04 05"},
		{"PAGEOUT", unix.MADV_PAGEOUT, "01 02 SIGSEGV 04 05"},
		{"POPULATE_READ", unix.MADV_POPULATE_READ, "01 02 SIGSEGV 04 05"},
		{"POPULATE_WRITE", unix.MADV_POPULATE_WRITE, "01 02 SIGSEGV 04 05"},
		{"GUARD_INSTALL", guardInstall, "SIGSEGV SIGSEGV SIGSEGV SIGSEGV SIGSEGV"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 5)
			a.Anon(t, 0, 5, kit.RW, 0)
			a.Fill(t, 0, 5, 1)
			require.Zero(t, kit.Me.Munmap(a.Page(2), kit.Len(1)))
			got := advise(a, 0, 5, c.advice)
			assert.Equal(t, unix.ENOMEM, got, kit.ErrnoName(got))
			assert.Equal(t, c.after, contents(a, kit.Me, 0, 5))
			kit.Say(t, "%s: %s", kit.ErrnoName(got), contents(a, kit.Me, 0, 5))
		})
	}
}
