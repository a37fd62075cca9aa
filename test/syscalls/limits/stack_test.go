// Claims that RLIMIT_STACK bounds how far a mapping that grows down may grow, now and not when it was made, and that
// growth is bounded by the other limits too.
package limits

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

const growAt = 60 // the page of a mapping that grows down; nothing is below it

func growing(t testing.TB, flags int) *subject {
	t.Helper()
	s := newSubject(t)
	s.mustMap(t, growAt, 1, rw, anon|unix.MAP_GROWSDOWN|flags, -1)
	return s
}

// lowest is the page that it begins with by now.
func lowest(t testing.TB, s *subject) int {
	t.Helper()
	lines := s.arena.Maps(t, s.Actor)
	require.NotEmpty(t, lines)
	return int(lines[len(lines)-1].Start-s.arena.Base) / kit.PageSize
}

// The limit is for all of the mapping.
func TestStackLimitIsExact(t *testing.T) {
	s := growing(t, 0)
	s.limit(t, unix.RLIMIT_STACK, uint64(kit.Len(5)))
	denied, allowed := s.Store(s.arena.Page(growAt-5), 1), s.Store(s.arena.Page(growAt-4), 1)
	kit.Say(t, "%s, %s", s.arena.Describe(denied), s.arena.Describe(allowed))
	assert.Equal(t, "SIGSEGV/MAPERR", denied.SignalName())
	assert.False(t, allowed.Faulted())
	assert.Equal(t, growAt-4, lowest(t, s))
}

func TestStackLimitSetFromOutsideCountsAtOnce(t *testing.T) {
	s := growing(t, 0)
	for pages := 2; pages < 6; pages++ {
		s.limit(t, unix.RLIMIT_STACK, uint64(kit.Len(pages)))
		assert.True(t, s.Store(s.arena.Page(growAt-pages), 1).Faulted(), "%d pages", pages)
		assert.False(t, s.Store(s.arena.Page(growAt-pages+1), 1).Faulted(), "%d pages", pages)
	}
	s.limit(t, unix.RLIMIT_STACK, 0)
	assert.False(t, s.Store(s.arena.Page(growAt-3), 2).Faulted(), "what has grown stays")
	assert.True(t, s.Store(s.arena.Page(growAt-7), 2).Faulted())
	kit.Say(t, "%d", lowest(t, s))
}

func TestForkedChildInheritsTheStackLimit(t *testing.T) {
	s := growing(t, 0)
	s.limit(t, unix.RLIMIT_STACK, uint64(kit.Len(3)))
	child := &subject{Actor: s.Fork(t), arena: s.arena}
	assert.True(t, child.Store(s.arena.Page(growAt-3), 1).Faulted())
	assert.False(t, child.Store(s.arena.Page(growAt-2), 1).Faulted())
	assert.Equal(t, growAt, lowest(t, s), "the parent's has not grown")
}

// What is asked for as a whole is not growth.
func TestStackLimitIsNotForMmap(t *testing.T) {
	s := newSubject(t)
	s.limit(t, unix.RLIMIT_STACK, uint64(kit.Len(2)))
	e := s.mmap(8, 8, rw, anon|unix.MAP_GROWSDOWN, -1)
	kit.Say(t, "%s", kit.ErrnoName(e))
	assert.Equal(t, unix.Errno(0), e)
}

// Locked memory grows as far as may be locked.
func TestLockLimitBoundsGrowth(t *testing.T) {
	s := growing(t, unix.MAP_LOCKED)
	s.limit(t, unix.RLIMIT_MEMLOCK, uint64(kit.Len(4)))
	denied, allowed := s.Store(s.arena.Page(growAt-4), 1), s.Store(s.arena.Page(growAt-3), 1)
	kit.Say(t, "%s, %s", s.arena.Describe(denied), s.arena.Describe(allowed))
	assert.Equal(t, "SIGSEGV/MAPERR", denied.SignalName())
	assert.False(t, allowed.Faulted())
	assert.Equal(t, 4, locked(t, s))
}

// Room that is not there does not kill who asks the kernel to write to it.
func TestSystemCallBeyondTheLimitFails(t *testing.T) {
	s := growing(t, 0)
	s.limit(t, unix.RLIMIT_STACK, uint64(kit.Len(2)))
	beyond := s.Call(unix.SYS_PREAD64, uintptr(s.file), s.arena.Page(growAt-2), 1, 0)
	within := s.Call(unix.SYS_PREAD64, uintptr(s.file), s.arena.Page(growAt-1), 1, 0)
	kit.Say(t, "%v %v", beyond, within)
	assert.Equal(t, unix.EFAULT, beyond.Errno)
	assert.True(t, within.OK())
}
