// These tests claim what becomes of locks when mappings are made, replaced, moved, split and copied.
package mlock

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMapLocked(t *testing.T) {
	t.Run("is locked and resident", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 4, kit.RW, unix.MAP_LOCKED)
		assert.Equal(t, []string{"p0-p4 locked"}, locks(t, a, kit.Me))
		assert.Equal(t, "16 kB", a.Smaps(t, kit.Me)[0]["Locked"])
	})
	t.Run("merges with locked neighbours only", func(t *testing.T) {
		a := kit.NewArena(t, 6)
		a.Anon(t, 0, 2, kit.RW, unix.MAP_LOCKED)
		a.Anon(t, 2, 2, kit.RW, unix.MAP_LOCKED)
		a.Anon(t, 4, 2, kit.RW, 0)
		assert.Equal(t, []string{"p0-p4 locked", "p4-p6 none"}, locks(t, a, kit.Me))
		sayLocks(t, a, kit.Me)
	})
	t.Run("without access", func(t *testing.T) {
		a := kit.NewArena(t, 2)
		a.Anon(t, 0, 2, unix.PROT_NONE, unix.MAP_LOCKED)
		assert.Equal(t, []string{"p0-p2 locked"}, locks(t, a, kit.Me))
	})
	// Unlike mlock, it does not fail for what cannot be populated.
	t.Run("beyond the end of a file", func(t *testing.T) {
		a := kit.NewArena(t, 3)
		a.Map(t, 0, 3, kit.RW, unix.MAP_SHARED|unix.MAP_LOCKED, kit.File(t, 1), 0)
		assert.Equal(t, []string{"p0-p3 locked"}, locks(t, a, kit.Me))
		assert.Equal(t, []string{"41", "SIGBUS", "SIGBUS"}, endings(a.Bytes(kit.Me, 0, 3)))
	})
}

func TestReplacementIsNotLocked(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, unix.MAP_LOCKED)
	a.Anon(t, 1, 2, kit.RW, 0)
	assert.Equal(t, []string{"p0-p1 locked", "p1-p3 none", "p3-p4 locked"}, locks(t, a, kit.Me))
	sayLocks(t, a, kit.Me)
}

func TestProtectionChangesKeepLocks(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, unix.MAP_LOCKED)
	require.Zero(t, kit.Me.Mprotect(a.Page(1), kit.Len(2), unix.PROT_READ))
	assert.Equal(t, []string{"p0-p1 locked", "p1-p3 locked", "p3-p4 locked"}, locks(t, a, kit.Me))
	sayLocks(t, a, kit.Me)
}

// Memory that was locked without access is populated when access is given.
func TestAccessPopulatesLockedMemory(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Anon(t, 0, 3, unix.PROT_NONE, unix.MAP_LOCKED)
	require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(3), kit.RW))
	assert.Equal(t, "12 kB", a.Smaps(t, kit.Me)[0]["Locked"])
	assert.Equal(t, []string{"p0-p3 locked"}, locks(t, a, kit.Me))
}

func TestRemapKeepsLocks(t *testing.T) {
	const moving = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED
	for _, c := range []struct {
		name     string
		lock     func(a *kit.Arena) unix.Errno
		old, new int // pages
		flags    int
		to       int
		after    []string
		rss      string // of the first mapping, if known
	}{
		{"moved", eager, 2, 2, moving, 6, []string{"p6-p8 locked"}, "8 kB"},
		{"grown in place", eager, 2, 4, 0, 0, []string{"p0-p4 locked"}, "16 kB"},
		{"grown and moved", eager, 2, 4, moving, 6, []string{"p6-p10 locked"}, "16 kB"},
		{"shrunk", eager, 2, 1, 0, 0, []string{"p0-p1 locked"}, "4 kB"},
		{"onfault moved", lazy, 2, 2, moving, 6, []string{"p6-p8 onfault"}, ""},
		{"onfault grown", lazy, 2, 4, 0, 0, []string{"p0-p4 onfault"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 12)
			a.Anon(t, 0, 2, kit.RW, 0)
			a.Fill(t, 0, 2, 1)
			require.Zero(t, c.lock(a))
			r := kit.Me.Mremap(a.Page(0), kit.Len(c.old), kit.Len(c.new), c.flags, a.Page(c.to))
			require.True(t, r.OK(), r)
			assert.Equal(t, c.after, locks(t, a, kit.Me))
			if c.rss != "" {
				assert.Equal(t, c.rss, a.Smaps(t, kit.Me)[c.to]["Locked"])
			}
			assert.Equal(t, "01", a.Bytes(kit.Me, c.to, 1)[0])
			sayLocks(t, a, kit.Me)
		})
	}
}

// The old mapping stays, empty; it is not locked any more. In a process of its own: Linux 6.18 goes on
// counting it as locked.
func TestRemapThatLeavesTheOldMapping(t *testing.T) {
	a := kit.NewArena(t, 12)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 1)
	child := kit.Fork(t)
	require.Zero(t, child.Mlock(a.Page(0), kit.Len(2)))
	r := child.Mremap(a.Page(0), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED|unix.MREMAP_DONTUNMAP, a.Page(6))
	require.True(t, r.OK(), r)
	assert.Equal(t, []string{"p0-p2 none", "p6-p8 locked"}, locks(t, a, child))
	assert.Equal(t, []string{"00", "00"}, a.Bytes(child, 0, 2))
	assert.Equal(t, []string{"01", "02"}, a.Bytes(child, 6, 2))
	sayLocks(t, a, child)
}

func eager(a *kit.Arena) unix.Errno { return kit.Me.Mlock(a.Page(0), kit.Len(2)) }
func lazy(a *kit.Arena) unix.Errno {
	return kit.Me.Mlock2(a.Page(0), kit.Len(2), unix.MLOCK_ONFAULT)
}

func TestChildHasNoLocks(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 2, kit.RW, unix.MAP_LOCKED)
	a.Anon(t, 2, 2, kit.RW, 0)
	require.Zero(t, kit.Me.Mlock2(a.Page(2), kit.Len(1), unix.MLOCK_ONFAULT))
	a.Fill(t, 0, 4, 1)
	child := kit.Fork(t)
	for _, l := range locks(t, a, child) {
		assert.Contains(t, l, " none")
	}
	assert.Equal(t, []string{"p0-p2 locked", "p2-p3 onfault", "p3-p4 none"}, locks(t, a, kit.Me))
	assert.Equal(t, []string{"01", "02", "03", "04"}, a.Bytes(child, 0, 4))
}

func TestLocksOfSharedMappingsAreEachTheirOwn(t *testing.T) {
	a := kit.NewArena(t, 4)
	fd := kit.File(t, 2)
	a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
	a.Map(t, 2, 2, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 2, 0), 0)
	require.Zero(t, kit.Me.Mlock(a.Page(0), kit.Len(1)))
	child := kit.Fork(t)
	require.Zero(t, child.Mlock(a.Page(2), kit.Len(1)))
	assert.Equal(t, []string{"p0-p1 locked", "p1-p2 none", "p2-p4 none"}, locks(t, a, kit.Me))
	sayLocks(t, a, kit.Me)
	assert.Contains(t, locks(t, a, child), "p2-p3 locked")
}
