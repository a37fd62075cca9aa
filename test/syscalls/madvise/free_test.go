// These tests claim what MADV_FREE, MADV_COLD, MADV_PAGEOUT, MADV_COLLAPSE and MADV_REMOVE leave of contents.
package madvise

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestFreedPageIsOldOrZeroUntilItIsWrittenTo(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 1)
	mustAdvise(t, a, 0, 3, unix.MADV_FREE)
	assert.Contains(t, []string{"01", "00"}, contents(a, kit.Me, 0, 1))
	require.False(t, kit.Me.Store(a.Page(1), 9).Faulted())
	assert.Equal(t, "09", contents(a, kit.Me, 1, 1))
	assert.Contains(t, []string{"03", "00"}, contents(a, kit.Me, 2, 1))
	assert.Equal(t, "04", contents(a, kit.Me, 3, 1))
}

func TestFreeIsForOneProcess(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 1)
	child := kit.Fork(t)
	mustAdvise(t, a, 0, 2, unix.MADV_FREE)
	assert.Equal(t, "01 02", contents(a, child, 0, 2))
}

func TestReclaimKeepsContents(t *testing.T) {
	for _, c := range []struct {
		name   string
		advice int
	}{{"COLD", unix.MADV_COLD}, {"PAGEOUT", unix.MADV_PAGEOUT}, {"WILLNEED", unix.MADV_WILLNEED}} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Anon(t, 0, 2, kit.RW, 0)
			a.Map(t, 2, 2, kit.RW, unix.MAP_PRIVATE, diskFile(t), 0)
			a.Map(t, 4, 2, kit.RW, unix.MAP_SHARED, diskFile(t), 0)
			a.Map(t, 6, 2, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 2, 0), 0)
			a.Fill(t, 0, 8, 1)
			mustAdvise(t, a, 0, 8, c.advice)
			assert.Equal(t, "01 02 03 04 05 06 07 08", contents(a, kit.Me, 0, 8))
		})
	}
}

func TestCollapseKeepsContents(t *testing.T) {
	const huge = kit.HugeSize / 4096
	if kit.PageSize != 4096 {
		t.Skip("pages of another size")
	}
	a := kit.NewArena(t, 2*huge)
	a.Anon(t, 0, 2*huge, kit.RW, 0)
	for i := range 2 * huge {
		require.False(t, kit.Me.Store(a.Page(i), byte(i)).Faulted())
	}
	e := advise(a, 0, 2*huge, unix.MADV_COLLAPSE)
	// It may fail for want of memory, or of a quiet moment.
	assert.Contains(t, []unix.Errno{0, unix.EAGAIN, unix.EBUSY, unix.ENOMEM}, e, kit.ErrnoName(e))
	for i := range 2 * huge {
		require.Equal(t, uint64(byte(i)), kit.Me.Load(a.Page(i)).Value, "page %d", i)
	}
	assert.Len(t, a.Maps(t, kit.Me), 1)
}

func TestRemoveEmptiesTheFile(t *testing.T) {
	remove := func(t *testing.T, fd int) {
		a := kit.NewArena(t, 8)
		a.Map(t, 0, 4, kit.RW, unix.MAP_SHARED, fd, 0)
		a.Map(t, 4, 4, unix.PROT_READ, unix.MAP_PRIVATE, fd, 0)
		a.Fill(t, 0, 4, 1)
		mustAdvise(t, a, 1, 2, unix.MADV_REMOVE)
		assert.Equal(t, "01 00 00 04", contents(a, kit.Me, 0, 4))
		assert.Equal(t, "01 00 00 04", contents(a, kit.Me, 4, 4), "another mapping of the file")
		content := make([]byte, kit.Len(4)+1)
		n, err := unix.Pread(fd, content, 0)
		require.NoError(t, err)
		assert.Equal(t, int(kit.Len(4)), n, "the size of the file")
		assert.Equal(t, make([]byte, kit.Len(2)), content[kit.Len(1):kit.Len(3)])
		a.Fill(t, 1, 1, 9)
		assert.Equal(t, "01 09 00 04", contents(a, kit.Me, 4, 4))
	}
	kit.EachDir(t, func(t *testing.T, d kit.Dir) { remove(t, d.File(t, 4)) })
	t.Run("memfd", func(t *testing.T) { remove(t, kit.Memfd(t, 4, 0)) })
	t.Run("shared anonymous", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 4, kit.RW, 0)
		a.Map(t, 0, 4, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
		a.Fill(t, 0, 4, 1)
		child := kit.Fork(t)
		mustAdvise(t, a, 1, 2, unix.MADV_REMOVE)
		assert.Equal(t, "01 00 00 04", contents(a, kit.Me, 0, 4))
		assert.Equal(t, "01 00 00 04", contents(a, child, 0, 4))
	})
}

func TestRemoveSparesPrivateCopies(t *testing.T) {
	a := kit.NewArena(t, 4)
	fd := kit.Memfd(t, 2, 0)
	a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
	a.Map(t, 2, 2, kit.RW, unix.MAP_PRIVATE, fd, 0)
	a.Fill(t, 2, 1, 7)
	mustAdvise(t, a, 0, 2, unix.MADV_REMOVE)
	assert.Equal(t, "00 00 07 00", contents(a, kit.Me, 0, 4))
	zeroes := make([]byte, kit.Len(2))
	content := bytes.Repeat([]byte{1}, len(zeroes))
	_, err := unix.Pread(fd, content, 0)
	require.NoError(t, err)
	assert.Equal(t, zeroes, content)
}
