// These tests claim what RLIMIT_MEMLOCK allows a process without CAP_IPC_LOCK, and that what is locked
// already is not counted twice.
package mlock

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit uint64
		do    func(a *kit.Arena, child *kit.Actor) unix.Errno
		want  unix.Errno
		after string
	}{
		{"within", bytes(2), func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Mlock(a.Page(0), kit.Len(2)) }, 0, "p0-p2 locked"},
		{"beyond", bytes(2), func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Mlock(a.Page(0), kit.Len(3)) }, unix.ENOMEM, "p0-p8 none"},
		{"beyond on fault", bytes(2), func(a *kit.Arena, c *kit.Actor) unix.Errno {
			return c.Mlock2(a.Page(0), kit.Len(3), unix.MLOCK_ONFAULT)
		}, unix.ENOMEM, "p0-p8 none"},
		{"of zero", 0, func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Mlock(a.Page(0), kit.Len(1)) }, unix.EPERM, "p0-p8 none"},
		{"of zero, nothing to lock", 0, func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Mlock(a.Page(0), 0) }, unix.EPERM, "p0-p8 none"},
		{"of zero, mlockall", 0, func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Mlockall(unix.MCL_CURRENT) }, unix.EPERM, "p0-p8 none"},
		{"of zero, mlockall for later", 0, func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Mlockall(unix.MCL_FUTURE) }, unix.EPERM, "p0-p8 none"},
		{"of zero, munlock", 0, func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Munlock(a.Page(0), kit.Len(2)) }, 0, "p0-p8 none"},
		{"of zero, munlockall", 0, func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Munlockall() }, 0, "p0-p8 none"},
		{"below all there is, mlockall", bytes(8), func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Mlockall(unix.MCL_CURRENT) }, unix.ENOMEM, "p0-p8 none"},
		{"below all there is, mlockall for later", bytes(8), func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Mlockall(unix.MCL_FUTURE) }, 0, "p0-p8 none"},
		{"not a multiple of pages", bytes(2) - 1, func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Mlock(a.Page(0), kit.Len(2)) }, unix.ENOMEM, "p0-p8 none"},
		{"within, but not mapped", bytes(2), func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Mlock(a.Page(7), kit.Len(2)) }, unix.ENOMEM, "p7-p8 locked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Anon(t, 0, 8, kit.RW, 0)
			child := unprivileged(t, c.limit)
			got := c.do(a, child)
			assert.Equal(t, c.want, got, kit.ErrnoName(got))
			assert.Contains(t, locks(t, a, child), c.after)
			kit.Say(t, "%s", kit.ErrnoName(got))
			sayLocks(t, a, child)
		})
	}
}

func TestLimitCountsMemoryOnce(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 8, kit.RW, 0)
	child := unprivileged(t, bytes(4))
	assert.Zero(t, child.Mlock(a.Page(0), kit.Len(3)))
	assert.Zero(t, child.Mlock(a.Page(0), kit.Len(4)), "three of the four are locked already")
	assert.Zero(t, child.Mlock2(a.Page(0), kit.Len(4), unix.MLOCK_ONFAULT))
	assert.Equal(t, unix.ENOMEM, child.Mlock(a.Page(0), kit.Len(5)))
	assert.Equal(t, unix.ENOMEM, child.Mlock(a.Page(6), kit.Len(1)))
	assert.Zero(t, child.Munlock(a.Page(1), kit.Len(1)))
	assert.Zero(t, child.Mlock(a.Page(6), kit.Len(1)))
	assert.Equal(t, []string{"p0-p1 onfault", "p1-p2 none", "p2-p4 onfault", "p4-p6 none", "p6-p7 locked", "p7-p8 none"}, locks(t, a, child))
	sayLocks(t, a, child)
}

func TestLimitIsFreedBy(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(a *kit.Arena, child *kit.Actor) unix.Errno
		ok   bool
	}{
		{"nothing", func(*kit.Arena, *kit.Actor) unix.Errno { return 0 }, false},
		{"munmap", func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Munmap(a.Page(0), kit.Len(2)) }, true},
		{"munlock", func(a *kit.Arena, c *kit.Actor) unix.Errno { return c.Munlock(a.Page(0), kit.Len(2)) }, true},
		{"munlockall", func(_ *kit.Arena, c *kit.Actor) unix.Errno { return c.Munlockall() }, true},
		{"replacement", func(a *kit.Arena, c *kit.Actor) unix.Errno {
			return c.Mmap(a.Page(0), kit.Len(2), kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, -1, 0).Errno
		}, true},
		{"shrinking", func(a *kit.Arena, c *kit.Actor) unix.Errno {
			return c.Mremap(a.Page(0), kit.Len(4), kit.Len(2), 0, 0).Errno
		}, true},
		{"moving", func(a *kit.Arena, c *kit.Actor) unix.Errno {
			return c.Mremap(a.Page(0), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(8)).Errno
		}, false},
		{"a move over it", func(a *kit.Arena, c *kit.Actor) unix.Errno {
			return c.Mremap(a.Page(4), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(0)).Errno
		}, true},
		{"protection", func(a *kit.Arena, c *kit.Actor) unix.Errno {
			return c.Mprotect(a.Page(0), kit.Len(2), unix.PROT_NONE)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 12)
			a.Anon(t, 0, 8, kit.RW, 0)
			child := unprivileged(t, bytes(4))
			require.Zero(t, child.Mlock(a.Page(0), kit.Len(4)))
			require.Zero(t, c.do(a, child))
			got := child.Mlock(a.Page(6), kit.Len(2))
			if c.ok {
				assert.Zero(t, got)
			} else {
				assert.Equal(t, unix.ENOMEM, got)
			}
			kit.Say(t, "%s", kit.ErrnoName(got))
			sayLocks(t, a, child)
		})
	}
}

func TestLimitOfNewMappings(t *testing.T) {
	mapAt := func(a *kit.Arena, c *kit.Actor, page, n, flags int) unix.Errno {
		return c.Mmap(a.Page(page), kit.Len(n), kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|flags, -1, 0).Errno
	}
	t.Run("MAP_LOCKED", func(t *testing.T) {
		a := kit.NewArena(t, 8)
		child := unprivileged(t, bytes(2))
		assert.Zero(t, mapAt(a, child, 0, 2, unix.MAP_LOCKED))
		assert.Equal(t, unix.EAGAIN, mapAt(a, child, 4, 1, unix.MAP_LOCKED))
		assert.Zero(t, mapAt(a, child, 4, 1, 0))
		assert.Equal(t, []string{"p0-p2 locked", "p4-p5 none"}, locks(t, a, child))
		sayLocks(t, a, child)
	})
	t.Run("MAP_LOCKED at a limit of zero", func(t *testing.T) {
		a := kit.NewArena(t, 8)
		child := unprivileged(t, 0)
		assert.Equal(t, unix.EPERM, mapAt(a, child, 0, 1, unix.MAP_LOCKED))
		assert.Empty(t, locks(t, a, child))
	})
	t.Run("MCL_FUTURE", func(t *testing.T) {
		a := kit.NewArena(t, 8)
		child := unprivileged(t, bytes(2))
		require.Zero(t, child.Mlockall(unix.MCL_FUTURE))
		assert.Zero(t, mapAt(a, child, 0, 2, 0))
		assert.Equal(t, unix.EAGAIN, mapAt(a, child, 4, 1, 0))
		assert.Equal(t, []string{"p0-p2 locked"}, locks(t, a, child))
		sayLocks(t, a, child)
	})
	t.Run("growth by mremap", func(t *testing.T) {
		a := kit.NewArena(t, 8)
		child := unprivileged(t, bytes(2))
		require.Zero(t, mapAt(a, child, 0, 2, unix.MAP_LOCKED))
		r := child.Mremap(a.Page(0), kit.Len(2), kit.Len(3), 0, 0)
		assert.Equal(t, unix.EAGAIN, r.Errno)
		assert.Equal(t, []string{"p0-p2 locked"}, locks(t, a, child))
		sayLocks(t, a, child)
	})
}

func TestLoweredLimitKeepsWhatIsLocked(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 8, kit.RW, 0)
	child := kit.Fork(t)
	require.Zero(t, child.Mlock(a.Page(0), kit.Len(4)))
	setLimit(t, child, bytes(1))
	dropPrivileges(t, child)
	assert.Equal(t, []string{"p0-p4 locked", "p4-p8 none"}, locks(t, a, child))
	assert.Equal(t, unix.ENOMEM, child.Mlock(a.Page(0), kit.Len(1)), "even what is locked cannot be locked again")
	assert.Zero(t, child.Munlock(a.Page(0), kit.Len(4)))
	assert.Zero(t, child.Mlock(a.Page(0), kit.Len(1)))
	sayLocks(t, a, child)
}

func TestCapabilityLiftsLimit(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 8, kit.RW, 0)
	child := kit.Fork(t)
	setLimit(t, child, 0)
	assert.Zero(t, child.Mlock(a.Page(0), kit.Len(8)))
	assert.Equal(t, []string{"p0-p8 locked"}, locks(t, a, child))
	assert.Zero(t, child.Mlockall(unix.MCL_CURRENT|unix.MCL_ONFAULT))
	assert.Equal(t, []string{"p0-p8 onfault"}, locks(t, a, child))
}

func TestForkedProcessHasTheWholeLimit(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 8, kit.RW, 0)
	child := unprivileged(t, bytes(4))
	require.Zero(t, child.Mlock(a.Page(0), kit.Len(4)))
	grandchild := child.Fork(t)
	assert.Zero(t, grandchild.Mlock(a.Page(4), kit.Len(4)))
	assert.Equal(t, unix.ENOMEM, grandchild.Mlock(a.Page(0), kit.Len(1)))
}
