// These tests claim that after msync the file has what was written through shared mappings, on both sides
// of a hole, and nothing that was written to private ones.
package msync

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// firstBytes are those of so many pages of a file.
func firstBytes(t *testing.T, fd, pages int) []byte {
	t.Helper()
	var found []byte
	for i := range pages {
		b := []byte{0}
		_, err := unix.Pread(fd, b, int64(kit.Len(i)))
		require.NoError(t, err)
		found = append(found, b[0])
	}
	return found
}

func TestStoredInTheFile(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		for _, c := range []struct {
			name  string
			flags int
		}{{"sync", unix.MS_SYNC}, {"async", unix.MS_ASYNC}, {"invalidate", unix.MS_INVALIDATE}} {
			t.Run(c.name, func(t *testing.T) {
				a := kit.NewArena(t, 5)
				path := d.NamedFile(t, 5)
				a.Map(t, 0, 5, kit.RW, unix.MAP_SHARED, kit.Open(t, path, unix.O_RDWR), 0)
				a.Fill(t, 0, 5, 1)
				require.Zero(t, kit.Me.Munmap(a.Page(2), kit.Len(1)))
				assert.Equal(t, unix.ENOMEM, kit.Me.Msync(a.Page(0), kit.Len(5), c.flags))
				assert.Equal(t, []byte{1, 2, 3, 4, 5}, firstBytes(t, kit.Open(t, path, unix.O_RDONLY), 5))
				assert.Equal(t, []string{"01", "02", "SIGSEGV/MAPERR", "04", "05"}, a.Bytes(kit.Me, 0, 5))
			})
		}
	})
}

func TestPrivateChangesAreNotStored(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, kit.RW, unix.MAP_PRIVATE, fd, 0)
		a.Fill(t, 0, 2, 1)
		assert.Zero(t, kit.Me.Msync(a.Page(0), kit.Len(2), unix.MS_SYNC|unix.MS_INVALIDATE))
		assert.Equal(t, []byte("AB"), firstBytes(t, fd, 2))
		assert.Equal(t, []string{"01", "02"}, a.Bytes(kit.Me, 0, 2), "invalidating keeps private pages")
	})
}

func TestInvalidateShowsWhatIsInTheFile(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		a.Fill(t, 0, 1, 1)
		_, err := unix.Pwrite(fd, []byte("z"), int64(kit.Len(1)))
		require.NoError(t, err)
		assert.Zero(t, kit.Me.Msync(a.Page(0), kit.Len(2), unix.MS_SYNC|unix.MS_INVALIDATE))
		assert.Equal(t, []string{"01", "7a"}, a.Bytes(kit.Me, 0, 2))
	})
}

func TestStoredThoughNotWritableAnyMore(t *testing.T) {
	a := kit.NewArena(t, 2)
	fd := kit.File(t, 2)
	a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
	a.Fill(t, 0, 2, 1)
	require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(2), unix.PROT_NONE))
	assert.Zero(t, kit.Me.Msync(a.Page(0), kit.Len(2), unix.MS_SYNC))
	assert.Equal(t, []byte{1, 2}, firstBytes(t, fd, 2))
}

// The last page is stored up to the end of the file, which does not grow.
func TestFileDoesNotGrow(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(1))+10))
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		require.False(t, kit.Me.Store(a.Page(1)+9, 7).Faulted())
		require.False(t, kit.Me.Store(a.Page(1)+10, 8).Faulted())
		assert.Zero(t, kit.Me.Msync(a.Page(0), kit.Len(2), unix.MS_SYNC))
		var st unix.Stat_t
		require.NoError(t, unix.Fstat(fd, &st))
		assert.Equal(t, int64(kit.Len(1))+10, st.Size)
		b := []byte{0, 0}
		n, err := unix.Pread(fd, b, int64(kit.Len(1))+9)
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		assert.Equal(t, byte(7), b[0])
	})
}

// What changes a file through a mapping changes its time of modification, at the latest with msync.
func TestModificationTimeChanges(t *testing.T) {
	a := kit.NewArena(t, 1)
	fd := kit.File(t, 1)
	require.NoError(t, unix.Futimes(fd, []unix.Timeval{{Sec: 1}, {Sec: 1}}))
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	a.Fill(t, 0, 1, 1)
	assert.Zero(t, kit.Me.Msync(a.Page(0), kit.Len(1), unix.MS_SYNC))
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &st))
	assert.NotEqual(t, int64(1), st.Mtim.Sec)
}

func TestAfterTheFileIsClosed(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		path := d.NamedFile(t, 2)
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		require.NoError(t, err)
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		require.NoError(t, unix.Close(fd))
		a.Fill(t, 0, 2, 1)
		assert.Zero(t, kit.Me.Msync(a.Page(0), kit.Len(2), unix.MS_SYNC))
		assert.Equal(t, []byte{1, 2}, firstBytes(t, kit.Open(t, path, unix.O_RDONLY), 2))
	})
}

func TestAfterTheFileIsTruncated(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		a.Fill(t, 0, 2, 1)
		require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(1))))
		assert.Zero(t, kit.Me.Msync(a.Page(0), kit.Len(2), unix.MS_SYNC))
		assert.Equal(t, []byte{1}, firstBytes(t, fd, 1))
	})
}

func TestWritesOfAnotherProcessAreStored(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		path := d.NamedFile(t, 2)
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, kit.Open(t, path, unix.O_RDWR), 0)
		child := kit.Fork(t)
		require.False(t, child.Store(a.Page(0), 5).Faulted())
		a.Fill(t, 1, 1, 6)
		assert.Zero(t, child.Msync(a.Page(0), kit.Len(2), unix.MS_SYNC))
		assert.Equal(t, []byte{5, 6}, firstBytes(t, kit.Open(t, path, unix.O_RDONLY), 2))
	})
}
