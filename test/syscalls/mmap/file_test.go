// Claims that a shared mapping is the file and a private one is a copy, and that both outlive descriptors and names.
package mmap

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMappingShowsTheFile(t *testing.T) {
	for kind, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.Run(kind, func(t *testing.T) {
			kit.EachDir(t, func(t *testing.T, d kit.Dir) {
				a := kit.NewArena(t, 4)
				a.Map(t, 0, 3, ro, flags, d.File(t, 4), 1)
				kit.Say(t, "%v", a.Bytes(kit.Me, 0, 4))
				assert.Equal(t, []string{"42", "43", "44", "SIGSEGV/MAPERR"}, a.Bytes(kit.Me, 0, 4))
			})
		})
	}
}

func TestSharedStoreIsInTheFile(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, rw, unix.MAP_SHARED, fd, 0)
		kit.Me.Store(a.Page(1)+9, 7)
		assert.Equal(t, "07", fileByte(t, fd, int64(kit.PageSize)+9))
		assert.Equal(t, "42", fileByte(t, fd, int64(kit.PageSize)+8))
	})
}

func TestWriteIsInTheSharedMapping(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, rw, unix.MAP_SHARED, fd, 0)
		for _, touched := range []bool{false, true} {
			if touched {
				a.Fill(t, 0, 2, 3)
			}
			write(t, fd, 0, 7)
			assert.Equal(t, "07", a.Bytes(kit.Me, 0, 1)[0], "touched before: %v", touched)
		}
	})
}

// Two shared mappings of the same pages are the same memory: in one process, by two descriptors, in two processes.
func TestSharedMappingsAgree(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 6)
		path := d.NamedFile(t, 2)
		first := kit.Open(t, path, unix.O_RDWR)
		a.Map(t, 0, 2, rw, unix.MAP_SHARED, first, 0)
		a.Map(t, 2, 2, rw, unix.MAP_SHARED, first, 0)
		a.Map(t, 4, 2, ro, unix.MAP_SHARED, kit.Open(t, path, unix.O_RDONLY), 0)
		child := kit.Fork(t)
		a.Fill(t, 0, 1, 7)
		child.Store(a.Page(3), 8)
		kit.Say(t, "%v", a.Bytes(kit.Me, 0, 6))
		assert.Equal(t, []string{"07", "08", "07", "08", "07", "08"}, a.Bytes(kit.Me, 0, 6))
		assert.Equal(t, []string{"07", "08", "07", "08", "07", "08"}, a.Bytes(child, 0, 6))
	})
}

func TestPrivateStoreIsNotInTheFile(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 4)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, rw, unix.MAP_PRIVATE, fd, 0)
		a.Map(t, 2, 2, rw, unix.MAP_SHARED, fd, 0)
		a.Fill(t, 0, 1, 7)
		kit.Say(t, "%v", a.Bytes(kit.Me, 0, 4))
		assert.Equal(t, []string{"07", "42", "41", "42"}, a.Bytes(kit.Me, 0, 4))
		assert.Equal(t, "41", fileByte(t, fd, 0))
	})
}

// A private page that was written to no longer follows the file: all of the page, and nothing but the page.
func TestPrivatePageAfterItsFirstStore(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, rw, unix.MAP_PRIVATE, fd, 0)
		kit.Me.Store(a.Base, 7)
		write(t, fd, 0, 9)
		write(t, fd, 100, 9)
		kit.Say(t, "%v %v", a.Describe(kit.Me.Load(a.Base)), a.Describe(kit.Me.Load(a.Base+100)))
		assert.Equal(t, uint64(7), kit.Me.Load(a.Base).Value)
		assert.Equal(t, uint64('A'), kit.Me.Load(a.Base+100).Value)
	})
}

// What a system call writes to a private mapping stays in it.
func TestReadIntoAPrivateMapping(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, rw, unix.MAP_PRIVATE, fd, 0)
		r, w := kit.Pipe(t)
		_, err := unix.Write(w, []byte{7, 7})
		require.NoError(t, err)
		require.True(t, kit.Me.Read(r, a.Page(1)-1, 2).OK())
		assert.Equal(t, uint64(7), kit.Me.Load(a.Page(1)-1).Value)
		assert.Equal(t, uint64(7), kit.Me.Load(a.Page(1)).Value)
		assert.Equal(t, "41", fileByte(t, fd, int64(kit.PageSize)-1))
		assert.Equal(t, "42", fileByte(t, fd, int64(kit.PageSize)))
	})
}

func TestMappingOutlivesItsDescriptor(t *testing.T) {
	for kind, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.Run(kind, func(t *testing.T) {
			kit.EachDir(t, func(t *testing.T, d kit.Dir) {
				a := kit.NewArena(t, 2)
				path := d.NamedFile(t, 2)
				fd, err := unix.Open(path, unix.O_RDWR, 0)
				require.NoError(t, err)
				a.Map(t, 0, 2, rw, flags, fd, 0)
				require.NoError(t, unix.Close(fd))
				a.Fill(t, 0, 1, 7)
				assert.Equal(t, []string{"07", "42"}, a.Bytes(kit.Me, 0, 2))
				data, err := os.ReadFile(path)
				require.NoError(t, err)
				kit.Say(t, "file begins with %02x", data[0])
				assert.Equal(t, flags == unix.MAP_SHARED, data[0] == 7)
			})
		})
	}
}

func TestMappingOutlivesTheName(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		path := d.NamedFile(t, 2)
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		require.NoError(t, err)
		a.Map(t, 0, 2, rw, unix.MAP_SHARED, fd, 0)
		require.NoError(t, unix.Close(fd))
		require.NoError(t, os.Remove(path))
		assert.Equal(t, []string{"41", "42"}, a.Bytes(kit.Me, 0, 2))
		a.Fill(t, 0, 2, 7)
		assert.Equal(t, []string{"07", "08"}, a.Bytes(kit.Me, 0, 2))
		child := kit.Fork(t)
		child.Store(a.Base, 9)
		assert.Equal(t, []string{"09", "08"}, a.Bytes(kit.Me, 0, 2))
	})
}

// maps shows the name that the file has now.
func TestNamesInMaps(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		setup := func(t *testing.T) (*kit.Arena, string) {
			a := kit.NewArena(t, 1)
			path := d.NamedFile(t, 1)
			a.Map(t, 0, 1, ro, unix.MAP_SHARED, kit.Open(t, path, unix.O_RDWR), 0)
			return a, path
		}
		t.Run("as opened", func(t *testing.T) {
			a, path := setup(t)
			assert.Equal(t, path, a.Maps(t, kit.Me)[0].Name)
		})
		t.Run("unlinked", func(t *testing.T) {
			a, path := setup(t)
			require.NoError(t, os.Remove(path))
			assert.Equal(t, path+" (deleted)", a.Maps(t, kit.Me)[0].Name)
		})
		t.Run("renamed", func(t *testing.T) {
			a, path := setup(t)
			require.NoError(t, os.Rename(path, path+"-new"))
			t.Cleanup(func() { os.Remove(path + "-new") })
			assert.Equal(t, path+"-new", a.Maps(t, kit.Me)[0].Name)
		})
		t.Run("inode", func(t *testing.T) {
			a, path := setup(t)
			var st unix.Stat_t
			require.NoError(t, unix.Stat(path, &st))
			assert.Equal(t, st.Ino, a.Maps(t, kit.Me)[0].Inode)
		})
		t.Run("offset", func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Map(t, 0, 1, ro, unix.MAP_PRIVATE, d.File(t, 4), 3)
			assert.Equal(t, uint64(kit.Len(3)), a.Maps(t, kit.Me)[0].Offset)
		})
	})
}

// The descriptor's position has nothing to do with it.
func TestMappingDoesNotMoveTheOffset(t *testing.T) {
	a := kit.NewArena(t, 1)
	fd := kit.File(t, 2)
	_, err := unix.Seek(fd, 100, 0)
	require.NoError(t, err)
	a.Map(t, 0, 1, ro, unix.MAP_PRIVATE, fd, 0)
	a.Bytes(kit.Me, 0, 1)
	at, err := unix.Seek(fd, 0, 1)
	require.NoError(t, err)
	assert.Equal(t, int64(100), at)
}

// Read-only mappings see what writable ones of the same file do, in every combination of who touched first.
func TestSharedAfterPrivateSeesTheFile(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 1)
		a.Map(t, 0, 1, rw, unix.MAP_PRIVATE, fd, 0)
		a.Fill(t, 0, 1, 7)
		a.Map(t, 1, 1, rw, unix.MAP_SHARED, fd, 0)
		a.Fill(t, 1, 1, 8)
		assert.Equal(t, []string{"07", "08"}, a.Bytes(kit.Me, 0, 2))
		assert.Equal(t, "08", fileByte(t, fd, 0))
	})
}
