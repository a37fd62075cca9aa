// Claims that munmap takes off what it unmaps from what is counted, and lets go of what was mapped.
package munmap

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// virtualPages is the size of a process's address space, by statm.
func virtualPages(t testing.TB, actor *kit.Actor) int {
	t.Helper()
	data, err := os.ReadFile(actor.Proc() + "/statm")
	require.NoError(t, err)
	var pages int
	_, err = fmt.Sscan(string(data), &pages)
	require.NoError(t, err)
	return pages
}

func TestAddressSpaceShrinks(t *testing.T) {
	for name, c := range map[string]struct{ prot, flags int }{
		"anonymous": {rw, anon}, "no access": {none, anon}, "shared": {rw, shared},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 16)
			child := kit.Fork(t)
			before := virtualPages(t, child)
			require.True(t, child.Mmap(a.Base, kit.Len(10), c.prot, c.flags|unix.MAP_FIXED, -1, 0).OK())
			var seen []int
			for _, r := range [][2]int{{2, 3}, {2, 3}, {0, 4}, {8, 8}, {0, 16}} {
				require.Zero(t, child.Munmap(a.Page(r[0]), kit.Len(r[1])))
				seen = append(seen, virtualPages(t, child)-before)
			}
			kit.Say(t, "%v", seen)
			assert.Equal(t, []int{7, 7, 5, 3, 0}, seen)
		})
	}
}

// A length far beyond what is mapped costs and changes no more.
func TestVeryLongRange(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 1, rw, 0)
	a.Anon(t, 3, 1, rw, 0)
	child := kit.Fork(t)
	data, err := os.ReadFile(child.Proc() + "/maps")
	require.NoError(t, err)
	lines, err := kit.ParseMaps(data)
	require.NoError(t, err)
	var next uintptr
	for _, l := range lines {
		if l.Start >= a.End() {
			next = l.Start
			break
		}
	}
	require.Greater(t, next-a.Base, uintptr(64<<30), "Go's heap is far above")
	before := virtualPages(t, child)
	require.Zero(t, child.Munmap(a.Base, next-a.Base))
	assert.Equal(t, 2, before-virtualPages(t, child))
	assert.Empty(t, a.Layout(t, child))
}

// Locked memory is counted per page too: what is left of a split mapping stays locked.
func TestUnmappingLockedMemory(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 6, rw, unix.MAP_LOCKED)
	require.Zero(t, kit.Me.Munmap(a.Page(2), kit.Len(2)))
	smaps := a.Smaps(t, kit.Me)
	for _, i := range []int{0, 4} {
		require.Contains(t, smaps, i)
		kit.Say(t, "%d: %s", i, smaps[i]["Locked"])
		assert.Equal(t, "8 kB", smaps[i]["Locked"])
		assert.Contains(t, smaps[i]["VmFlags"]+" ", "lo ")
	}
}

func TestLockedCountOfTheProcess(t *testing.T) {
	a := kit.NewArena(t, 6)
	child := kit.Fork(t)
	require.True(t, child.Mmap(a.Base, kit.Len(6), rw, anon|unix.MAP_FIXED|unix.MAP_LOCKED, -1, 0).OK())
	before := kit.Status(t, child, "VmLck")
	require.Zero(t, child.Munmap(a.Page(2), kit.Len(2)))
	kit.Say(t, "%s, then %s", before, kit.Status(t, child, "VmLck"))
	assert.Equal(t, "24 kB", before)
	assert.Equal(t, "16 kB", kit.Status(t, child, "VmLck"))
}

// A file whose name and descriptors are gone is freed with its last mapping.
func TestLastMappingOfADeletedFileFreesIt(t *testing.T) {
	path := t.TempDir()
	require.NoError(t, unix.Mount("kit", path, "tmpfs", 0, "size=1m"))
	defer func() { assert.NoError(t, unix.Unmount(path, 0), "nothing holds the file system") }()
	free := func() uint64 {
		var st unix.Statfs_t
		require.NoError(t, unix.Statfs(path, &st))
		return st.Bfree
	}
	before := free()
	a := kit.NewArena(t, 16)
	d := kit.Dir{Path: path}
	name := d.NamedFile(t, 16)
	fd, err := unix.Open(name, unix.O_RDWR, 0)
	require.NoError(t, err)
	a.Map(t, 0, 16, rw, unix.MAP_SHARED, fd, 0)
	require.NoError(t, unix.Close(fd))
	require.NoError(t, os.Remove(name))
	assert.Equal(t, uint64(16), before-free(), "the mapping holds it")
	require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(8)))
	require.Zero(t, kit.Me.Munmap(a.Page(9), kit.Len(7)))
	assert.Equal(t, []string{"49"}, a.Bytes(kit.Me, 8, 1), "one page of it is enough")
	require.Zero(t, kit.Me.Munmap(a.Page(8), kit.Len(1)))
	kit.Say(t, "%d", before-free())
	assert.Equal(t, before, free())
}

// A mapping keeps a file system busy until it goes.
func TestMappingHoldsTheFileSystem(t *testing.T) {
	path := t.TempDir()
	require.NoError(t, unix.Mount("kit", path, "tmpfs", 0, ""))
	mounted := true
	defer func() {
		if mounted {
			unix.Unmount(path, unix.MNT_DETACH)
		}
	}()
	a := kit.NewArena(t, 2)
	fd, err := unix.Open(kit.Dir{Path: path}.NamedFile(t, 2), unix.O_RDWR, 0)
	require.NoError(t, err)
	a.Map(t, 0, 2, rw, unix.MAP_PRIVATE, fd, 0)
	require.NoError(t, unix.Close(fd))
	assert.Equal(t, unix.EBUSY, unix.Unmount(path, 0))
	require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(1)))
	assert.Equal(t, unix.EBUSY, unix.Unmount(path, 0))
	require.Zero(t, kit.Me.Munmap(a.Page(1), kit.Len(1)))
	err = unix.Unmount(path, 0)
	mounted = err != nil
	kit.Say(t, "%v", err)
	assert.NoError(t, err)
}

// Pages to the left and right of what goes stay where they are.
func TestRemainingPagesStayResident(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 8, rw, unix.MAP_POPULATE)
	require.Zero(t, kit.Me.Munmap(a.Page(2), kit.Len(2)))
	vec := make([]byte, 8)
	require.Zero(t, kit.Me.Mincore(a.Page(0), kit.Len(2), vec))
	require.Zero(t, kit.Me.Mincore(a.Page(4), kit.Len(4), vec[2:]))
	assert.Equal(t, []byte{1, 1, 1, 1, 1, 1}, vec[:6])
	assert.Equal(t, unix.ENOMEM, kit.Me.Mincore(a.Page(2), kit.Len(1), vec))
}
