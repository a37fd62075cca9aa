// These tests claim that pages which nobody has touched, or which were given up, are not resident.
package mincore

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestUntouchedPagesAreNot(t *testing.T) {
	t.Run("anonymous", func(t *testing.T) {
		a := kit.NewArena(t, 3)
		a.Anon(t, 0, 3, kit.RW, 0)
		a.Fill(t, 1, 1, 1)
		assert.Equal(t, "010", residency(t, a, 0, 3))
	})
	t.Run("shared anonymous", func(t *testing.T) {
		a := kit.NewArena(t, 3)
		a.Map(t, 0, 3, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
		a.Fill(t, 1, 1, 1)
		assert.Equal(t, "010", residency(t, a, 0, 3))
	})
	t.Run("no access", func(t *testing.T) {
		a := kit.NewArena(t, 3)
		a.Anon(t, 0, 3, unix.PROT_NONE, 0)
		assert.Equal(t, "000", residency(t, a, 0, 3))
	})
	t.Run("hole of a memfd", func(t *testing.T) {
		a := kit.NewArena(t, 3)
		fd := kit.Memfd(t, 1, 0)
		require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(3))))
		a.Map(t, 0, 3, kit.RW, unix.MAP_SHARED, fd, 0)
		assert.Equal(t, "100", residency(t, a, 0, 3))
	})
	t.Run("beyond the end of a file", func(t *testing.T) {
		a := kit.NewArena(t, 3)
		a.Map(t, 0, 3, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
		assert.Equal(t, "100", residency(t, a, 0, 3))
	})
}

func TestGivenUp(t *testing.T) {
	t.Run("anonymous", func(t *testing.T) {
		a := kit.NewArena(t, 3)
		a.Anon(t, 0, 3, kit.RW, 0)
		a.Fill(t, 0, 3, 1)
		require.Zero(t, kit.Me.Madvise(a.Page(1), kit.Len(2), unix.MADV_DONTNEED))
		assert.Equal(t, "100", residency(t, a, 0, 3))
	})
	t.Run("replaced", func(t *testing.T) {
		a := kit.NewArena(t, 3)
		a.Anon(t, 0, 3, kit.RW, 0)
		a.Fill(t, 0, 3, 1)
		a.Anon(t, 1, 1, kit.RW, 0)
		assert.Equal(t, "101", residency(t, a, 0, 3))
	})
	t.Run("grown by mremap", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 2, kit.RW, 0)
		a.Fill(t, 0, 2, 1)
		require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(4), 0, 0).OK())
		assert.Equal(t, "1100", residency(t, a, 0, 4))
	})
	t.Run("hole punched into a memfd", func(t *testing.T) {
		a := kit.NewArena(t, 3)
		fd := kit.Memfd(t, 3, 0)
		a.Map(t, 0, 3, kit.RW, unix.MAP_SHARED, fd, 0)
		a.Fill(t, 0, 3, 1)
		require.NoError(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(kit.Len(1)), int64(kit.Len(1))))
		assert.Equal(t, "101", residency(t, a, 0, 3))
	})
}

// The pages of a shared mapping stay in the file when the mapping gives them up.
func TestGivenUpByOneMappingOnly(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Map(t, 0, 3, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 3, 0), 0)
	a.Fill(t, 0, 3, 1)
	require.Zero(t, kit.Me.Madvise(a.Page(0), kit.Len(3), unix.MADV_DONTNEED))
	assert.Equal(t, "111", residency(t, a, 0, 3))
}

// Which pages of a file are in memory is for those to know who may write to it. Others are told all of them.
func TestFileOfOthersSeemsResident(t *testing.T) {
	a := kit.NewArena(t, 3)
	fd := kit.Memfd(t, 1, 0)
	require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(3))))
	require.NoError(t, unix.Fchmod(fd, 0o644))
	a.Map(t, 0, 3, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
	vec := kit.Shared(t, kit.PageSize)
	child := kit.Fork(t)
	const nobody = 65534
	require.True(t, child.Call(unix.SYS_SETRESUID, nobody, nobody, nobody).OK())
	require.Zero(t, child.Mincore(a.Page(0), kit.Len(3), vec[:3]))
	assert.Equal(t, []byte{1, 1, 1}, vec[:3])
}
