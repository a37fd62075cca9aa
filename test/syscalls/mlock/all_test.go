// These tests claim that mlockall locks what there is, what comes, or both, and munlockall neither. They
// work in forked processes: Go's runtime should not run under it.
package mlock

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// mapNew maps two pages at page 4 in a process and fails if that does.
func mapNew(t *testing.T, a *kit.Arena, actor *kit.Actor) {
	t.Helper()
	r := actor.Mmap(a.Page(4), kit.Len(2), kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, -1, 0)
	require.True(t, r.OK(), r)
}

func TestLockAll(t *testing.T) {
	for _, c := range []struct {
		name   string
		calls  []int // flags of mlockall; 0 is munlockall
		before string
		after  string // of a mapping made afterwards
	}{
		{"current", []int{unix.MCL_CURRENT}, "locked", "none"},
		{"future", []int{unix.MCL_FUTURE}, "none", "locked"},
		{"both", []int{unix.MCL_CURRENT | unix.MCL_FUTURE}, "locked", "locked"},
		{"current on fault", []int{unix.MCL_CURRENT | unix.MCL_ONFAULT}, "onfault", "none"},
		{"future on fault", []int{unix.MCL_FUTURE | unix.MCL_ONFAULT}, "none", "onfault"},
		{"both on fault", []int{unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT}, "onfault", "onfault"},
		{"future, then current", []int{unix.MCL_FUTURE, unix.MCL_CURRENT}, "locked", "none"},
		{"current, then future", []int{unix.MCL_CURRENT, unix.MCL_FUTURE}, "locked", "locked"},
		{"current, then on fault", []int{unix.MCL_CURRENT, unix.MCL_CURRENT | unix.MCL_ONFAULT}, "onfault", "none"},
		{"both, then not", []int{unix.MCL_CURRENT | unix.MCL_FUTURE, 0}, "none", "none"},
		{"on fault, then not", []int{unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT, 0}, "none", "none"},
		{"not", []int{0}, "none", "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Anon(t, 0, 2, kit.RW, 0)
			child := kit.Fork(t)
			for _, flags := range c.calls {
				if flags == 0 {
					require.Zero(t, child.Munlockall())
				} else {
					require.Zero(t, child.Mlockall(flags))
				}
			}
			mapNew(t, a, child)
			assert.Equal(t, []string{"p0-p2 " + c.before, "p4-p6 " + c.after}, locks(t, a, child))
			assert.Equal(t, []string{"p0-p2 none"}, locks(t, a, kit.Me))
			sayLocks(t, a, child)
		})
	}
}

func TestLockAllPopulates(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 2, kit.RW, 0)
	child := kit.Fork(t)
	require.Zero(t, child.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE))
	mapNew(t, a, child)
	entries := a.Smaps(t, child)
	assert.Equal(t, "8 kB", entries[0]["Rss"])
	assert.Equal(t, "8 kB", entries[4]["Rss"])
}

// Unlike mlock, it does not mind what it cannot populate.
func TestLockAllIgnoresWhatCannotBePopulated(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 2, unix.PROT_NONE, 0)
	a.Map(t, 2, 2, kit.RW, unix.MAP_SHARED, kit.File(t, 1), 0)
	a.Anon(t, 4, 2, kit.RW, 0)
	child := kit.Fork(t)
	assert.Zero(t, child.Mlockall(unix.MCL_CURRENT))
	assert.Equal(t, []string{"p0-p2 locked", "p2-p4 locked", "p4-p6 locked"}, locks(t, a, child))
	assert.Equal(t, "8 kB", a.Smaps(t, child)[4]["Rss"])
	sayLocks(t, a, child)
}

func TestFutureLocksGrowthByRemapAndBreak(t *testing.T) {
	a := kit.NewArena(t, 8)
	child := kit.Fork(t)
	require.Zero(t, child.Mlockall(unix.MCL_FUTURE|unix.MCL_ONFAULT))
	mapNew(t, a, child)
	r := child.Mremap(a.Page(4), kit.Len(2), kit.Len(4), 0, 0)
	require.True(t, r.OK(), r)
	assert.Equal(t, []string{"p4-p8 onfault"}, locks(t, a, child))
}

func TestFutureIsNotInherited(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 2, kit.RW, 0)
	child := kit.Fork(t)
	require.Zero(t, child.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT))
	grandchild := child.Fork(t)
	mapNew(t, a, grandchild)
	assert.Equal(t, []string{"p0-p2 none", "p4-p6 none"}, locks(t, a, grandchild))
	sayLocks(t, a, grandchild)
}

func TestLockAllOfNothingNew(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 2, kit.RW, 0)
	child := kit.Fork(t)
	require.Zero(t, child.Mlockall(unix.MCL_FUTURE|unix.MCL_ONFAULT))
	require.Zero(t, child.Munlock(a.Page(0), kit.Len(2)))
	mapNew(t, a, child)
	require.Zero(t, child.Munlock(a.Page(4), kit.Len(2)))
	assert.Equal(t, []string{"p0-p2 none", "p4-p6 none"}, locks(t, a, child))
	r := child.Mmap(a.Page(6), kit.Len(1), kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, -1, 0)
	require.True(t, r.OK(), r)
	assert.Contains(t, locks(t, a, child), "p6-p7 onfault")
	sayLocks(t, a, child)
}
