// Claims that RLIMIT_MEMLOCK bounds locked memory of who has no CAP_IPC_LOCK: to the page, with errors that tell
// which call was refused.
package limits

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// locked is how many pages of the arena smaps shows in mappings that are locked.
func locked(t testing.TB, s *subject) int {
	t.Helper()
	smaps, n := s.arena.Smaps(t, s.Actor), 0
	for _, l := range s.arena.Maps(t, s.Actor) {
		if flags := smaps[int(l.Start-s.arena.Base)/kit.PageSize]["VmFlags"]; slices.Contains(strings.Fields(flags), "lo") {
			n += int(l.End-l.Start) / kit.PageSize
		}
	}
	return n
}

// lockWays are ways to lock n pages more, and the error of each when the limit is in the way.
func lockWays() map[string]struct {
	way
	want unix.Errno
} {
	mapped := func(t testing.TB, s *subject) { s.mustMap(t, 8, 32, rw, anon, -1) }
	one := func(t testing.TB, s *subject) { s.mustMap(t, 8, 1, rw, anon|unix.MAP_LOCKED, -1) }
	future := func(t testing.TB, s *subject) { require.Zero(t, s.Mlockall(unix.MCL_FUTURE)) }
	type w = struct {
		way
		want unix.Errno
	}
	return map[string]w{
		"mlock": {way{mapped, func(s *subject, n int) unix.Errno { return s.Mlock(s.arena.Page(8), kit.Len(n)) }}, unix.ENOMEM},
		"mlock2 on fault": {way{mapped, func(s *subject, n int) unix.Errno {
			return s.Mlock2(s.arena.Page(8), kit.Len(n), unix.MLOCK_ONFAULT)
		}}, unix.ENOMEM},
		"mmap":                {mapping(rw, anon|unix.MAP_LOCKED), unix.EAGAIN},
		"mmap no access":      {mapping(none, anon|unix.MAP_LOCKED), unix.EAGAIN},
		"mmap shared":         {mapping(rw, shared|unix.MAP_LOCKED), unix.EAGAIN},
		"mmap file":           {mapping(ro, unix.MAP_PRIVATE|unix.MAP_LOCKED), unix.EAGAIN},
		"mmap after mlockall": {way{future, func(s *subject, n int) unix.Errno { return s.mmap(8, n, rw, anon, -1) }}, unix.EAGAIN},
		"mremap in place": {way{one, func(s *subject, n int) unix.Errno {
			return s.Mremap(s.arena.Page(8), kit.Len(1), kit.Len(n+1), 0, 0).Errno
		}}, unix.EAGAIN},
		"mremap moving": {way{one, func(s *subject, n int) unix.Errno {
			return s.Mremap(s.arena.Page(8), kit.Len(1), kit.Len(n+1), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, s.arena.Page(32)).Errno
		}}, unix.EAGAIN},
	}
}

func TestLockLimitIsExact(t *testing.T) {
	for name, w := range lockWays() {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t)
			s.limit(t, unix.RLIMIT_MEMLOCK, unlimited)
			if w.prepare != nil {
				w.prepare(t, s)
			}
			before, layout := locked(t, s), s.whole(t)
			s.limit(t, unix.RLIMIT_MEMLOCK, uint64(kit.Len(before+4)))
			more := w.grow(s, 5)
			assert.Equal(t, w.want, more)
			assert.Equal(t, before, locked(t, s))
			assert.Equal(t, layout, s.whole(t))
			exactly := w.grow(s, 4)
			kit.Say(t, "5 pages: %s, 4 pages: %s", kit.ErrnoName(more), kit.ErrnoName(exactly))
			assert.Equal(t, unix.Errno(0), exactly)
			assert.Equal(t, 4, locked(t, s)-before)
		})
	}
}

// A limit of 0 is no permission at all; the error says so where locking was asked for.
func TestLockLimitOfZero(t *testing.T) {
	for name, c := range map[string]struct {
		call func(s *subject) unix.Errno
		want unix.Errno
	}{
		"mlock":      {func(s *subject) unix.Errno { return s.Mlock(s.arena.Page(8), kit.Len(1)) }, unix.EPERM},
		"mlock2":     {func(s *subject) unix.Errno { return s.Mlock2(s.arena.Page(8), kit.Len(1), 0) }, unix.EPERM},
		"mlockall":   {func(s *subject) unix.Errno { return s.Mlockall(unix.MCL_FUTURE) }, unix.EPERM},
		"MAP_LOCKED": {func(s *subject) unix.Errno { return s.mmap(0, 1, rw, anon|unix.MAP_LOCKED, -1) }, unix.EPERM},
		"munlock":    {func(s *subject) unix.Errno { return s.Munlock(s.arena.Page(8), kit.Len(1)) }, 0},
		"munlockall": {func(s *subject) unix.Errno { return s.Munlockall() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t)
			s.mustMap(t, 8, 4, rw, anon, -1)
			s.limit(t, unix.RLIMIT_MEMLOCK, 0)
			e := c.call(s)
			kit.Say(t, "%s", kit.ErrnoName(e))
			assert.Equal(t, c.want, e)
			assert.Zero(t, locked(t, s))
		})
	}
}

// Who has CAP_IPC_LOCK may lock anything.
func TestPrivilegedLockingHasNoLimit(t *testing.T) {
	a := kit.NewArena(t, 8)
	child := kit.Fork(t)
	setSoft(t, child.Pid(), unix.RLIMIT_MEMLOCK, 0)
	e := child.Mmap(a.Base, kit.Len(8), rw, anon|fixed|unix.MAP_LOCKED, -1, 0).Errno
	kit.Say(t, "%s", kit.ErrnoName(e))
	assert.Equal(t, unix.Errno(0), e)
	require.Zero(t, child.Munlock(a.Base, kit.Len(8)))
	assert.Equal(t, unix.Errno(0), child.Mlock(a.Base, kit.Len(8)))
}

// Locking what is locked counts nothing.
func TestLockingTwiceCountsOnce(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 8, rw, anon, -1)
	s.limit(t, unix.RLIMIT_MEMLOCK, uint64(kit.Len(6)))
	require.Zero(t, s.Mlock(s.arena.Page(8), kit.Len(4)))
	assert.Equal(t, unix.Errno(0), s.Mlock(s.arena.Page(8), kit.Len(4)), "the same")
	assert.Equal(t, unix.Errno(0), s.Mlock(s.arena.Page(8), kit.Len(6)), "two more")
	e := s.Mlock(s.arena.Page(8), kit.Len(7))
	kit.Say(t, "%s", kit.ErrnoName(e))
	assert.Equal(t, unix.ENOMEM, e)
}

func TestUnlockedMemoryIsReturned(t *testing.T) {
	for name, release := range map[string]func(s *subject) unix.Errno{
		"munlock": func(s *subject) unix.Errno { return s.Munlock(s.arena.Page(8), kit.Len(2)) },
		"munmap":  func(s *subject) unix.Errno { return s.Munmap(s.arena.Page(8), kit.Len(2)) },
		"replace": func(s *subject) unix.Errno { return s.mmap(8, 2, rw, anon, -1) },
		"mremap":  func(s *subject) unix.Errno { return s.Mremap(s.arena.Page(8), kit.Len(4), kit.Len(2), 0, 0).Errno },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t)
			s.limit(t, unix.RLIMIT_MEMLOCK, uint64(kit.Len(4)))
			s.mustMap(t, 8, 4, rw, anon|unix.MAP_LOCKED, -1)
			require.Equal(t, unix.EAGAIN, s.mmap(20, 1, rw, anon|unix.MAP_LOCKED, -1))
			require.Zero(t, release(s))
			assert.Equal(t, unix.EAGAIN, s.mmap(20, 3, rw, anon|unix.MAP_LOCKED, -1))
			assert.Equal(t, unix.Errno(0), s.mmap(20, 2, rw, anon|unix.MAP_LOCKED, -1))
		})
	}
}

// Locked memory in the place of locked memory, at the limit: Linux counts the new before the old goes. It may
// be refused, then nothing has changed, or work, then all of it.
func TestLockedOverLocked(t *testing.T) {
	s := newSubject(t)
	s.limit(t, unix.RLIMIT_MEMLOCK, uint64(kit.Len(4)))
	s.mustMap(t, 8, 4, rw, anon|unix.MAP_LOCKED, -1)
	require.False(t, s.Store(s.arena.Page(8), 7).Faulted())
	e := s.mmap(8, 4, ro, anon|unix.MAP_LOCKED, -1)
	want, first := []string{"p8-p12 r--p 0"}, "00"
	if e != 0 {
		assert.Equal(t, unix.EAGAIN, e)
		want, first = []string{"p8-p12 rw-p 0"}, "07"
	}
	assert.Equal(t, want, s.whole(t))
	assert.Equal(t, first, s.arena.Bytes(s.Actor, 8, 1)[0])
	assert.Equal(t, 4, locked(t, s))
	assert.Equal(t, unix.ENOMEM, s.Mlock(s.arena.Page(8), kit.Len(5)), "not even mapped")
	s.mustMap(t, 20, 1, rw, anon, -1)
	assert.Equal(t, unix.ENOMEM, s.Mlock(s.arena.Page(20), kit.Len(1)), "the limit is reached either way")
}

// The heap is locked memory too once everything is.
func TestHeapUnderTheLockLimit(t *testing.T) {
	s := newSubject(t)
	s.limit(t, unix.RLIMIT_MEMLOCK, uint64(kit.Len(4)))
	require.Zero(t, s.Mlockall(unix.MCL_FUTURE))
	more := s.Brk(s.heap+kit.Len(5)) - s.heap
	exactly := s.Brk(s.heap+kit.Len(4)) - s.heap
	kit.Say(t, "%d, %d", more, exactly)
	assert.Zero(t, more)
	assert.Equal(t, kit.Len(4), exactly)
}

// What is mapped already is more than the limit.
func TestLockEverythingUnderALimit(t *testing.T) {
	s := newSubject(t)
	s.limit(t, unix.RLIMIT_MEMLOCK, uint64(kit.Len(4)))
	e := s.Mlockall(unix.MCL_CURRENT)
	kit.Say(t, "%s", kit.ErrnoName(e))
	assert.Equal(t, unix.ENOMEM, e)
}

// Locks are not inherited, so a child begins with none counted.
func TestForkedChildHasNothingLocked(t *testing.T) {
	s := newSubject(t)
	s.limit(t, unix.RLIMIT_MEMLOCK, uint64(kit.Len(4)))
	s.mustMap(t, 8, 4, rw, anon|unix.MAP_LOCKED, -1)
	child := &subject{Actor: s.Fork(t), arena: s.arena}
	assert.Zero(t, locked(t, child))
	assert.Equal(t, unix.Errno(0), child.mmap(20, 4, rw, anon|unix.MAP_LOCKED, -1))
	assert.Equal(t, unix.EAGAIN, child.mmap(24, 1, rw, anon|unix.MAP_LOCKED, -1))
}
