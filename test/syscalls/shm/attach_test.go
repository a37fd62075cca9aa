// These tests claim where shmat attaches, over what, with which access, and what shmdt detaches.
package shm

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestAttachAddress(t *testing.T) {
	for _, c := range []struct {
		name  string
		addr  func(a *kit.Arena) uintptr
		flags int
		want  string // where, or the error
	}{
		{"page", func(a *kit.Arena) uintptr { return a.Page(1) }, 0, "p1"},
		{"inside a page", func(a *kit.Arena) uintptr { return a.Page(1) + 1 }, 0, "EINVAL"},
		{"inside a page, rounded", func(a *kit.Arena) uintptr { return a.Page(1) + 100 }, unix.SHM_RND, "p1"},
		{"rounded to nothing", func(*kit.Arena) uintptr { return 1 }, unix.SHM_RND, "outside"},
		{"rounded to nothing, to replace", func(*kit.Arena) uintptr { return 1 }, unix.SHM_RND | shmRemap, "EINVAL"},
		{"none", func(*kit.Arena) uintptr { return 0 }, 0, "outside"},
		{"none, to replace", func(*kit.Arena) uintptr { return 0 }, shmRemap, "EINVAL"},
		{"in use", func(a *kit.Arena) uintptr { return a.Page(6) }, 0, "EINVAL"},
		{"in use at the end", func(a *kit.Arena) uintptr { return a.Page(5) }, 0, "EINVAL"},
		{"in use, to replace", func(a *kit.Arena) uintptr { return a.Page(6) }, shmRemap, "p6"},
		{"free, to replace", func(a *kit.Arena) uintptr { return a.Page(1) }, shmRemap, "p1"},
		{"inside a page, to replace, rounded", func(a *kit.Arena) uintptr { return a.Page(6) + 7 }, shmRemap | unix.SHM_RND, "p6"},
		{"of the kernel", func(*kit.Arena) uintptr { return 1 << 63 }, 0, "ENOMEM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 10)
			a.Anon(t, 6, 3, kit.RW, 0)
			a.Fill(t, 6, 3, 1)
			id := segment(t, 2)
			r := attach(kit.Me, id, c.addr(a), c.flags)
			got := kit.ErrnoName(r.Errno)
			if r.OK() {
				got = a.Where(r.Value)
				assert.Equal(t, 1, attaches(t, id))
				t.Cleanup(func() { detach(kit.Me, r.Value) })
			} else {
				assert.Equal(t, 0, attaches(t, id))
				assert.Equal(t, "01 02 03", contents(a, kit.Me, 6, 3), "what is there stays")
			}
			assert.Equal(t, c.want, got)
			kit.Say(t, "%s: %s", got, layout(t, a))
		})
	}
}

func TestAttachReplaces(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 1)
	old, id := segment(t, 1), segment(t, 2)
	r := attach(kit.Me, old, a.Page(1), shmRemap)
	require.True(t, r.OK(), r)
	require.Equal(t, 1, attaches(t, old))
	r = attach(kit.Me, id, a.Page(1), shmRemap)
	require.True(t, r.OK(), r)
	assert.Equal(t, 0, attaches(t, old))
	assert.Equal(t, 1, attaches(t, id))
	assert.Equal(t, "01 00 00 04", contents(a, kit.Me, 0, 4))
	kit.Say(t, "%s", layout(t, a))
}

func TestAttachIsRoundedUpToPages(t *testing.T) {
	a := kit.NewArena(t, 4)
	id := segmentOf(t, unix.IPC_PRIVATE, kit.Len(1)+1, 0o600)
	mustAttach(t, a, id, 0)
	assert.Equal(t, "p0-p2 rw-s 0", layout(t, a))
	assert.False(t, kit.Me.Store(a.Page(2)-1, 1).Faulted())
}

func TestAccess(t *testing.T) {
	for _, c := range []struct {
		name   string
		flags  int
		layout string
	}{
		{"read and write", 0, "p0-p1 rw-s 0"},
		{"read only", unix.SHM_RDONLY, "p0-p1 r--s 0"},
		{"execute", shmExec, "p0-p1 rwxs 0"},
		{"read and execute", unix.SHM_RDONLY | shmExec, "p0-p1 r-xs 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			id := segmentOf(t, unix.IPC_PRIVATE, kit.Len(1), 0o700)
			r := attach(kit.Me, id, a.Page(0), c.flags)
			require.True(t, r.OK(), r)
			assert.Equal(t, c.layout, layout(t, a))
			readOnly := c.flags&unix.SHM_RDONLY != 0
			assert.Equal(t, readOnly, kit.Me.Store(a.Page(0), 1).Faulted())
			want := unix.Errno(0)
			if readOnly {
				want = unix.EACCES
			}
			assert.Equal(t, want, kit.Me.Mprotect(a.Page(0), kit.Len(1), kit.RW))
			kit.Say(t, "%s", layout(t, a))
		})
	}
}

func TestAttachesShareMemory(t *testing.T) {
	a := kit.NewArena(t, 6)
	id := segment(t, 2)
	mustAttach(t, a, id, 0)
	mustAttach(t, a, id, 4)
	a.Fill(t, 0, 2, 1)
	assert.Equal(t, "01 02 SIGSEGV SIGSEGV 01 02", contents(a, kit.Me, 0, 6))
	child := kit.Fork(t)
	require.False(t, child.Store(a.Page(5), 9).Faulted())
	assert.Equal(t, "01 09", contents(a, kit.Me, 0, 2))
	r := attach(child, id, a.Page(2), 0)
	require.True(t, r.OK(), r)
	assert.Equal(t, "01 09 01 09 01 09", contents(a, child, 0, 6))
	assert.Equal(t, "01 09 SIGSEGV SIGSEGV 01 09", contents(a, kit.Me, 0, 6))
}

func TestContentsStayWhileDetached(t *testing.T) {
	a := kit.NewArena(t, 2)
	id := segment(t, 2)
	mustAttach(t, a, id, 0)
	a.Fill(t, 0, 2, 1)
	require.Zero(t, detach(kit.Me, a.Page(0)))
	assert.Equal(t, "SIGSEGV SIGSEGV", contents(a, kit.Me, 0, 2))
	mustAttach(t, a, id, 0)
	assert.Equal(t, "01 02", contents(a, kit.Me, 0, 2))
}

func TestDetach(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(t *testing.T, a *kit.Arena) // to a segment of four pages attached at page 0
		addr  func(a *kit.Arena) uintptr
		want  unix.Errno
		after string
	}{
		{"as attached", nil, func(a *kit.Arena) uintptr { return a.Page(0) }, 0, ""},
		{"in the middle", nil, func(a *kit.Arena) uintptr { return a.Page(1) }, unix.EINVAL, "p0-p4 rw-s 0"},
		{"unaligned", nil, func(a *kit.Arena) uintptr { return a.Page(0) + 1 }, unix.EINVAL, "p0-p4 rw-s 0"},
		{"where nothing is", nil, func(a *kit.Arena) uintptr { return a.Page(6) }, unix.EINVAL, "p0-p4 rw-s 0"},
		{"other memory", func(t *testing.T, a *kit.Arena) { a.Anon(t, 6, 1, kit.RW, 0) }, func(a *kit.Arena) uintptr { return a.Page(6) }, unix.EINVAL, "p0-p4 rw-s 0, p6-p7 rw-p 0"},
		{"with other memory beside it", func(t *testing.T, a *kit.Arena) { a.Anon(t, 4, 1, kit.RW, 0) }, func(a *kit.Arena) uintptr { return a.Page(0) }, 0, "p4-p5 rw-p 0"},
		{"protected in the middle", func(t *testing.T, a *kit.Arena) {
			require.Zero(t, kit.Me.Mprotect(a.Page(1), kit.Len(1), unix.PROT_READ))
		}, func(a *kit.Arena) uintptr { return a.Page(0) }, 0, ""},
		{"unmapped in the middle", func(t *testing.T, a *kit.Arena) {
			require.Zero(t, kit.Me.Munmap(a.Page(1), kit.Len(1)))
		}, func(a *kit.Arena) uintptr { return a.Page(0) }, 0, ""},
		{"unmapped at the start", func(t *testing.T, a *kit.Arena) {
			require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(1)))
		}, func(a *kit.Arena) uintptr { return a.Page(0) }, 0, ""},
		{"unmapped at the start, at what is left", func(t *testing.T, a *kit.Arena) {
			require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(1)))
		}, func(a *kit.Arena) uintptr { return a.Page(1) }, unix.EINVAL, "p1-p4 rw-s 1"},
		{"replaced in the middle", func(t *testing.T, a *kit.Arena) { a.Anon(t, 1, 1, kit.RW, 0) }, func(a *kit.Arena) uintptr { return a.Page(0) }, 0, "p1-p2 rw-p 0"},
		{"moved", func(t *testing.T, a *kit.Arena) {
			require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(4), kit.Len(4), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(6)).OK())
		}, func(a *kit.Arena) uintptr { return a.Page(6) }, 0, ""},
		{"moved, at the old address", func(t *testing.T, a *kit.Arena) {
			require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(4), kit.Len(4), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(6)).OK())
		}, func(a *kit.Arena) uintptr { return a.Page(0) }, unix.EINVAL, "p6-p10 rw-s 0"},
		{"half moved away", func(t *testing.T, a *kit.Arena) {
			require.True(t, kit.Me.Mremap(a.Page(2), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(6)).OK())
		}, func(a *kit.Arena) uintptr { return a.Page(0) }, 0, "p6-p8 rw-s 2"},
		{"shrunk", func(t *testing.T, a *kit.Arena) {
			require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(4), kit.Len(2), 0, 0).OK())
		}, func(a *kit.Arena) uintptr { return a.Page(0) }, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 10)
			mustAttach(t, a, segment(t, 4), 0)
			if c.do != nil {
				c.do(t, a)
			}
			got := detach(kit.Me, c.addr(a))
			assert.Equal(t, c.want, got, kit.ErrnoName(got))
			assert.Equal(t, c.after, layout(t, a))
			kit.Say(t, "%s: %s", kit.ErrnoName(got), layout(t, a))
		})
	}
}

func TestSecondDetachFails(t *testing.T) {
	a := kit.NewArena(t, 2)
	mustAttach(t, a, segment(t, 2), 0)
	require.Zero(t, detach(kit.Me, a.Page(0)))
	assert.Equal(t, unix.EINVAL, detach(kit.Me, a.Page(0)))
}

func TestDetachOfOneAttachLeavesTheOther(t *testing.T) {
	a := kit.NewArena(t, 4)
	id := segment(t, 2)
	mustAttach(t, a, id, 0)
	mustAttach(t, a, id, 2)
	a.Fill(t, 0, 2, 1)
	require.Zero(t, detach(kit.Me, a.Page(0)))
	assert.Equal(t, "SIGSEGV SIGSEGV 01 02", contents(a, kit.Me, 0, 4))
	assert.Equal(t, 1, attaches(t, id))
}

// A segment beyond whose end is mapped has nothing there.
func TestGrownBeyondItsEnd(t *testing.T) {
	a := kit.NewArena(t, 4)
	mustAttach(t, a, segment(t, 2), 0)
	r := kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(4), 0, 0)
	require.True(t, r.OK(), r)
	assert.Equal(t, "00 00 SIGBUS SIGBUS", contents(a, kit.Me, 0, 4))
}

func TestNameInMaps(t *testing.T) {
	for _, c := range []struct {
		name string
		key  uintptr
		want string
	}{{"private", unix.IPC_PRIVATE, "/SYSV00000000 (deleted)"}, {"with a key", unusedKey, "/SYSV5e17a11e (deleted)"}} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			id := segmentOf(t, c.key, kit.Len(1), 0o600)
			mustAttach(t, a, id, 0)
			lines := a.Maps(t, kit.Me)
			require.Len(t, lines, 1)
			assert.Equal(t, c.want, lines[0].Name)
			kit.Say(t, "%s", lines[0].Name)
		})
	}
	t.Run("inode", func(t *testing.T) {
		a := kit.NewArena(t, 1)
		id := segment(t, 1)
		mustAttach(t, a, id, 0)
		assert.Equal(t, uint64(id), a.Maps(t, kit.Me)[0].Inode, "the identifier")
	})
}
