// These tests claim what a child has of each kind of mapping, and who sees what is written afterwards.
package fork

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// Three pages are filled with 1, 2 and 3; after the fork, the parent writes 8 to the first and the child 9
// to the second.
func TestWritesAfterFork(t *testing.T) {
	memfd := func(t *testing.T) int { return kit.Memfd(t, 3, 0) }
	disk := func(t *testing.T) int { return kit.File(t, 3) }
	for _, c := range []struct {
		name          string
		flags         int
		file          func(t *testing.T) int
		before        func(t *testing.T, a *kit.Arena)
		parent, child string
	}{
		{"anonymous", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil, nil, "08 02 03", "01 09 03"},
		{"anonymous, no reserve", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE, nil, nil, "08 02 03", "01 09 03"},
		{"anonymous, locked", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_LOCKED, nil, nil, "08 02 03", "01 09 03"},
		{"private file", unix.MAP_PRIVATE, disk, nil, "08 02 03", "01 09 03"},
		{"private memfd", unix.MAP_PRIVATE, memfd, nil, "08 02 03", "01 09 03"},
		{"shared anonymous", unix.MAP_SHARED | unix.MAP_ANONYMOUS, nil, nil, "08 09 03", "08 09 03"},
		{"shared file", unix.MAP_SHARED, disk, nil, "08 09 03", "08 09 03"},
		{"shared memfd", unix.MAP_SHARED, memfd, nil, "08 09 03", "08 09 03"},
		{"moved", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil, func(t *testing.T, a *kit.Arena) {
			require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(3), kit.Len(3), moving, a.Page(4)).OK())
			require.True(t, kit.Me.Mremap(a.Page(4), kit.Len(3), kit.Len(3), moving, a.Page(0)).OK())
		}, "08 02 03", "01 09 03"},
		{"split", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil, func(t *testing.T, a *kit.Arena) {
			require.Zero(t, kit.Me.Mprotect(a.Page(1), kit.Len(1), kit.RW|unix.PROT_EXEC))
		}, "08 02 03", "01 09 03"},
		{"forked before", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil, func(t *testing.T, a *kit.Arena) { kit.Fork(t) }, "08 02 03", "01 09 03"},
		{"forked before by one that has ended", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil, func(t *testing.T, a *kit.Arena) { kit.Fork(t).Exit(t, 0) }, "08 02 03", "01 09 03"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			fd := -1
			if c.file != nil {
				fd = c.file(t)
			}
			a.Map(t, 0, 3, kit.RW, c.flags, fd, 0)
			a.Fill(t, 0, 3, 1)
			if c.before != nil {
				c.before(t, a)
			}
			child := kit.Fork(t)
			assert.Equal(t, "01 02 03", contents(a, child, 0, 3))
			require.False(t, kit.Me.Store(a.Page(0), 8).Faulted())
			require.False(t, child.Store(a.Page(1), 9).Faulted())
			assert.Equal(t, c.parent, contents(a, kit.Me, 0, 3))
			assert.Equal(t, c.child, contents(a, child, 0, 3))
			kit.Say(t, "parent %s, child %s", contents(a, kit.Me, 0, 3), contents(a, child, 0, 3))
		})
	}
}

func TestRestOfACopiedPageIsKept(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Anon(t, 0, 1, kit.RW, 0)
	for i := range uintptr(kit.PageSize / 8) {
		require.False(t, kit.Me.Store64(a.Page(0)+8*i, uint64(i)).Faulted())
	}
	child := kit.Fork(t)
	require.False(t, child.Store64(a.Page(0)+8*5, 99).Faulted())
	require.False(t, kit.Me.Store64(a.Page(0)+8*6, 98).Faulted())
	for i := range uintptr(kit.PageSize / 8) {
		mine, its := uint64(i), uint64(i)
		switch i {
		case 5:
			its = 99
		case 6:
			mine = 98
		}
		require.Equal(t, mine, kit.Me.Load64(a.Page(0)+8*i).Value)
		require.Equal(t, its, child.Load64(a.Page(0)+8*i).Value)
	}
}

// What a private file mapping shows of later writes to the file is not specified, but each process keeps what
// it wrote itself, and what it inherited.
func TestPrivateFilePagesWhenTheFileChanges(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 3)
		fd := d.File(t, 3)
		a.Map(t, 0, 3, kit.RW, unix.MAP_PRIVATE, fd, 0)
		a.Fill(t, 0, 1, 1)
		child := kit.Fork(t)
		require.False(t, child.Store(a.Page(1), 2).Faulted())
		for i := range 3 {
			_, err := unix.Pwrite(fd, []byte("z"), int64(kit.Len(i)))
			require.NoError(t, err)
		}
		assert.Equal(t, "01", contents(a, kit.Me, 0, 1))
		assert.Contains(t, []string{"42", "7a"}, contents(a, kit.Me, 1, 1))
		assert.Equal(t, "01 02", contents(a, child, 0, 2))
		for _, actor := range []*kit.Actor{kit.Me, child} {
			assert.Contains(t, []string{"43", "7a"}, contents(a, actor, 2, 1))
		}
	})
}

func TestMappingsAreInherited(t *testing.T) {
	a := kit.NewArena(t, 14)
	fd := kit.Memfd(t, 4, 0)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Anon(t, 2, 1, unix.PROT_READ, 0)
	a.Anon(t, 3, 1, unix.PROT_NONE, 0)
	a.Map(t, 5, 2, kit.RW, unix.MAP_SHARED, fd, 1)
	a.Map(t, 7, 2, kit.RW, unix.MAP_PRIVATE, fd, 2)
	a.Map(t, 10, 3, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE, fd, 0)
	child := kit.Fork(t)
	assert.Equal(t, a.Layout(t, kit.Me), a.Layout(t, child))
	assert.Equal(t, a.Layout(t, kit.Me), a.Layout(t, child.Fork(t)))
	kit.Say(t, "%v", a.Layout(t, child))
}

func TestChangesOfMappingsAreEachTheirOwn(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 6, kit.RW, 0)
	a.Fill(t, 0, 6, 1)
	child := kit.Fork(t)
	require.Zero(t, child.Munmap(a.Page(0), kit.Len(1)))
	require.Zero(t, kit.Me.Munmap(a.Page(1), kit.Len(1)))
	require.Zero(t, child.Mprotect(a.Page(2), kit.Len(1), unix.PROT_NONE))
	require.True(t, kit.Me.Mremap(a.Page(3), kit.Len(1), kit.Len(1), moving, a.Page(7)).OK())
	require.Zero(t, child.Madvise(a.Page(4), kit.Len(1), unix.MADV_DONTNEED))
	assert.Equal(t, "01 SIGSEGV 03 SIGSEGV 05 06 SIGSEGV 04", contents(a, kit.Me, 0, 8))
	assert.Equal(t, "SIGSEGV 02 SIGSEGV 04 00 06 SIGSEGV SIGSEGV", contents(a, child, 0, 8))
}

// Protection taken away and given back does not lift the copying.
func TestProtectionDoesNotLiftCopyOnWrite(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 1)
	child := kit.Fork(t)
	for _, prot := range []int{unix.PROT_READ, unix.PROT_NONE, kit.RW} {
		require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(2), prot))
		require.Zero(t, child.Mprotect(a.Page(0), kit.Len(2), prot))
	}
	a.Fill(t, 0, 1, 8)
	require.False(t, child.Store(a.Page(1), 9).Faulted())
	assert.Equal(t, "08 02", contents(a, kit.Me, 0, 2))
	assert.Equal(t, "01 09", contents(a, child, 0, 2))
}

// What was written before the protection is inherited, though nobody can see it at the time.
func TestInaccessibleMemoryIsInherited(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 1)
	require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(2), unix.PROT_NONE))
	child := kit.Fork(t)
	require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(2), kit.RW))
	a.Fill(t, 0, 2, 8)
	require.Zero(t, child.Mprotect(a.Page(0), kit.Len(2), kit.RW))
	assert.Equal(t, "01 02", contents(a, child, 0, 2))
}

func TestUntouchedMemoryIsZeroForBoth(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	child := kit.Fork(t)
	a.Fill(t, 0, 1, 1)
	require.False(t, child.Store(a.Page(1), 2).Faulted())
	assert.Equal(t, "01 00", contents(a, kit.Me, 0, 2))
	assert.Equal(t, "00 02", contents(a, child, 0, 2))
}

func TestWritesByTheKernelAreCopiedToo(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 1)
	r, w := kit.Pipe(t)
	_, err := unix.Write(w, []byte{8, 9})
	require.NoError(t, err)
	child := kit.Fork(t)
	require.Equal(t, kit.Result{Value: 1}, kit.Me.Read(r, a.Page(0), 1))
	require.Equal(t, kit.Result{Value: 1}, child.Read(r, a.Page(1), 1))
	assert.Equal(t, "08 02", contents(a, kit.Me, 0, 2))
	assert.Equal(t, "01 09", contents(a, child, 0, 2))
}
