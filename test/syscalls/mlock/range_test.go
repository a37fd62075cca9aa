// These tests claim that mlock, mlock2 and munlock change exactly the pages that their range touches, up
// to the first hole, and refuse what makes no sense.
package mlock

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestLockChangesExactlyTheRange(t *testing.T) {
	for _, c := range []struct {
		name          string
		first, length uintptr // in bytes, from page 0 of four
		locked        []string
	}{
		{"all", 0, kit.Len(4), []string{"p0-p4 locked"}},
		{"first page", 0, kit.Len(1), []string{"p0-p1 locked", "p1-p4 none"}},
		{"middle", kit.Len(1), kit.Len(2), []string{"p0-p1 none", "p1-p3 locked", "p3-p4 none"}},
		{"last page", kit.Len(3), kit.Len(1), []string{"p0-p3 none", "p3-p4 locked"}},
		{"one byte locks its page", kit.Len(1) + 5, 1, []string{"p0-p1 none", "p1-p2 locked", "p2-p4 none"}},
		{"two bytes across pages lock both", kit.Len(2) - 1, 2, []string{"p0-p1 none", "p1-p3 locked", "p3-p4 none"}},
		{"length is rounded up", 0, kit.Len(1) + 1, []string{"p0-p2 locked", "p2-p4 none"}},
		{"nothing", kit.Len(1), 0, []string{"p0-p4 none"}},
		{"nothing inside a page", kit.Len(1) + 5, 0, []string{"p0-p1 none", "p1-p2 locked", "p2-p4 none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 0, 4, kit.RW, 0)
			assert.Zero(t, kit.Me.Mlock(a.Base+c.first, c.length))
			assert.Equal(t, c.locked, locks(t, a, kit.Me))
			sayLocks(t, a, kit.Me)
		})
	}
}

func TestUnlockSplitsAndMerges(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 6, kit.RW, 0)
	assert.Zero(t, kit.Me.Mlock(a.Page(0), kit.Len(6)))
	assert.Zero(t, kit.Me.Munlock(a.Page(2), kit.Len(2)))
	assert.Equal(t, []string{"p0-p2 locked", "p2-p4 none", "p4-p6 locked"}, locks(t, a, kit.Me))
	assert.Zero(t, kit.Me.Mlock(a.Page(2), kit.Len(2)))
	assert.Equal(t, []string{"p0-p6 locked"}, locks(t, a, kit.Me))
	assert.Zero(t, kit.Me.Munlock(a.Page(0), kit.Len(6)))
	assert.Equal(t, []string{"p0-p6 none"}, locks(t, a, kit.Me))
	sayLocks(t, a, kit.Me)
}

func TestUnlockOfUnlockedMemoryIsFine(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	assert.Zero(t, kit.Me.Munlock(a.Page(0), kit.Len(2)))
	assert.Equal(t, []string{"p0-p2 none"}, locks(t, a, kit.Me))
}

func TestLocksDoNotNest(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	for range 3 {
		assert.Zero(t, kit.Me.Mlock(a.Page(0), kit.Len(2)))
	}
	assert.Zero(t, kit.Me.Munlock(a.Page(0), kit.Len(2)))
	assert.Equal(t, []string{"p0-p2 none"}, locks(t, a, kit.Me))
}

func TestKindOfLockIsThatOfTheLastCall(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Anon(t, 0, 3, kit.RW, 0)
	assert.Zero(t, kit.Me.Mlock2(a.Page(0), kit.Len(3), unix.MLOCK_ONFAULT))
	assert.Equal(t, []string{"p0-p3 onfault"}, locks(t, a, kit.Me))
	assert.Zero(t, kit.Me.Mlock(a.Page(1), kit.Len(1)))
	assert.Equal(t, []string{"p0-p1 onfault", "p1-p2 locked", "p2-p3 onfault"}, locks(t, a, kit.Me))
	assert.Zero(t, kit.Me.Mlock2(a.Page(0), kit.Len(3), 0))
	assert.Equal(t, []string{"p0-p3 locked"}, locks(t, a, kit.Me))
	assert.Zero(t, kit.Me.Mlock2(a.Page(2), kit.Len(1), unix.MLOCK_ONFAULT))
	assert.Equal(t, []string{"p0-p2 locked", "p2-p3 onfault"}, locks(t, a, kit.Me))
	assert.Zero(t, kit.Me.Munlock(a.Page(0), kit.Len(3)))
	assert.Equal(t, []string{"p0-p3 none"}, locks(t, a, kit.Me))
	sayLocks(t, a, kit.Me)
}

func TestHoleFailsWithWhatIsBelowItDone(t *testing.T) {
	type call func(a *kit.Arena) unix.Errno
	for name, c := range map[string]struct {
		call  call
		after []string
	}{
		"mlock":         {func(a *kit.Arena) unix.Errno { return kit.Me.Mlock(a.Page(0), kit.Len(6)) }, []string{"p0-p2 locked", "p3-p6 none"}},
		"mlock2":        {func(a *kit.Arena) unix.Errno { return kit.Me.Mlock2(a.Page(0), kit.Len(6), 0) }, []string{"p0-p2 locked", "p3-p6 none"}},
		"onfault":       {func(a *kit.Arena) unix.Errno { return kit.Me.Mlock2(a.Page(0), kit.Len(6), unix.MLOCK_ONFAULT) }, []string{"p0-p2 onfault", "p3-p6 none"}},
		"hole at start": {func(a *kit.Arena) unix.Errno { return kit.Me.Mlock(a.Page(2), kit.Len(3)) }, []string{"p0-p2 none", "p3-p6 none"}},
		"hole at end":   {func(a *kit.Arena) unix.Errno { return kit.Me.Mlock(a.Page(1), kit.Len(2)) }, []string{"p0-p1 none", "p1-p2 locked", "p3-p6 none"}},
		"in the hole":   {func(a *kit.Arena) unix.Errno { return kit.Me.Mlock(a.Page(2), kit.Len(1)) }, []string{"p0-p2 none", "p3-p6 none"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 6)
			a.Anon(t, 0, 2, kit.RW, 0)
			a.Anon(t, 3, 3, kit.RW, 0)
			assert.Equal(t, unix.ENOMEM, c.call(a))
			assert.Equal(t, c.after, locks(t, a, kit.Me))
			sayLocks(t, a, kit.Me)
		})
	}
}

func TestUnlockStopsAtHole(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 6, kit.RW, 0)
	assert.Zero(t, kit.Me.Mlock(a.Page(0), kit.Len(6)))
	assert.Zero(t, kit.Me.Munmap(a.Page(2), kit.Len(1)))
	assert.Equal(t, unix.ENOMEM, kit.Me.Munlock(a.Page(1), kit.Len(4)))
	assert.Equal(t, []string{"p0-p1 locked", "p1-p2 none", "p3-p6 locked"}, locks(t, a, kit.Me))
	sayLocks(t, a, kit.Me)
}

func TestArgumentsThatMakeNoSense(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	page := uintptr(kit.PageSize)
	for _, c := range []struct {
		name string
		got  unix.Errno
		want unix.Errno
	}{
		{"mlock2 with an unknown flag", kit.Me.Mlock2(a.Page(0), kit.Len(1), 2), unix.EINVAL},
		{"mlock2 with an unknown flag and nothing mapped", kit.Me.Mlock2(a.End(), kit.Len(1), 1<<20), unix.EINVAL},
		{"mlock of a range that wraps around", kit.Me.Mlock(a.Page(1), -a.Page(1)+2*page), unix.EINVAL},
		{"munlock of a range that wraps around", kit.Me.Munlock(a.Page(1), -a.Page(1)+2*page), unix.EINVAL},
		{"mlock of a range of the kernel", kit.Me.Mlock(1<<63, page), unix.ENOMEM},
		{"mlock of nothing where nothing is", kit.Me.Mlock(a.End(), 0), 0},
		{"mlockall with nothing", kit.Me.Mlockall(0), unix.EINVAL},
		{"mlockall with ONFAULT alone", kit.Me.Mlockall(unix.MCL_ONFAULT), unix.EINVAL},
		{"mlockall with an unknown flag", kit.Me.Mlockall(8 | unix.MCL_CURRENT), unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, c.got, kit.ErrnoName(c.got))
			kit.Say(t, "%s", kit.ErrnoName(c.got))
		})
	}
	assert.Equal(t, []string{"p0-p2 none"}, locks(t, a, kit.Me))
}

func TestEveryKindOfMappingCanBeLocked(t *testing.T) {
	for _, c := range []struct {
		name   string
		prot   int
		flags  int
		file   bool
		result unix.Errno
	}{
		{"anonymous", kit.RW, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, false, 0},
		{"anonymous, read only", unix.PROT_READ, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, false, 0},
		{"anonymous, shared", kit.RW, unix.MAP_SHARED | unix.MAP_ANONYMOUS, false, 0},
		{"anonymous, no reserve", kit.RW, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE, false, 0},
		{"file, private", kit.RW, unix.MAP_PRIVATE, true, 0},
		{"file, private, read only", unix.PROT_READ, unix.MAP_PRIVATE, true, 0},
		{"file, shared", kit.RW, unix.MAP_SHARED, true, 0},
		{"file, shared, read only", unix.PROT_READ, unix.MAP_SHARED, true, 0},
		{"no access", unix.PROT_NONE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, false, unix.ENOMEM},
		{"file, no access", unix.PROT_NONE, unix.MAP_SHARED, true, unix.ENOMEM},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			fd := -1
			if c.file {
				fd = kit.File(t, 2)
			}
			a.Map(t, 0, 2, c.prot, c.flags, fd, 0)
			// The lock is there even if nobody can access the memory and it cannot be populated.
			assert.Equal(t, c.result, kit.Me.Mlock(a.Page(0), kit.Len(2)))
			assert.Equal(t, []string{"p0-p2 locked"}, locks(t, a, kit.Me))
			assert.Zero(t, kit.Me.Mlock2(a.Page(0), kit.Len(2), unix.MLOCK_ONFAULT))
			assert.Equal(t, []string{"p0-p2 onfault"}, locks(t, a, kit.Me))
			assert.Zero(t, kit.Me.Munlock(a.Page(0), kit.Len(2)))
			assert.Equal(t, []string{"p0-p2 none"}, locks(t, a, kit.Me))
			sayLocks(t, a, kit.Me)
		})
	}
}
