// Claims that RLIMIT_AS bounds the address space: to the page, whatever it is asked for by, with what a call
// replaces taken off.
package limits

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// sizeWays are ways to get memory of any kind: all count for the address space.
func sizeWays() map[string]way {
	all := ways()
	all["mmap to read"] = mapping(ro, anon)
	all["mmap no access"] = mapping(none, anon|unix.MAP_NORESERVE)
	all["mmap shared"] = mapping(rw, shared)
	all["mmap shared file"] = mapping(rw, unix.MAP_SHARED)
	all["mmap grows down"] = mapping(rw, anon|unix.MAP_GROWSDOWN)
	return all
}

func TestAddressSpaceLimitIsExact(t *testing.T) {
	for name, w := range sizeWays() {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t)
			if w.prepare != nil {
				w.prepare(t, s)
			}
			before, layout := s.count(t, "VmSize"), s.whole(t)
			s.allow(t, unix.RLIMIT_AS, "VmSize", 4)
			more := w.grow(s, 5)
			assert.Equal(t, unix.ENOMEM, more)
			assert.Equal(t, before, s.count(t, "VmSize"), "refused, it changes nothing")
			assert.Equal(t, layout, s.whole(t))
			exactly := w.grow(s, 4)
			kit.Say(t, "5 pages: %s, 4 pages: %s", kit.ErrnoName(more), kit.ErrnoName(exactly))
			assert.Equal(t, unix.Errno(0), exactly)
			assert.Equal(t, 4, s.count(t, "VmSize")-before)
			assert.Equal(t, unix.ENOMEM, s.mmap(0, 1, none, anon, -1), "now it is full")
		})
	}
}

func TestAddressSpaceLimitOfShmat(t *testing.T) {
	for name, c := range map[string]struct {
		allowed int
		want    unix.Errno
	}{"one page short": {7, unix.ENOMEM}, "enough": {8, 0}} {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t)
			s.allow(t, unix.RLIMIT_AS, "VmSize", c.allowed)
			e := s.shmat()
			kit.Say(t, "%s", kit.ErrnoName(e))
			assert.Equal(t, c.want, e)
		})
	}
}

// What MAP_FIXED replaces does not count twice.
//
//	old   |----8 pages----|
//	new       |----8 pages + k----|
func TestReplacedRangeIsDeducted(t *testing.T) {
	for name, c := range map[string]struct {
		at, pages int // pages [8,16) are mapped
		grows     int
	}{
		"the same":         {8, 8, 0},
		"a part":           {10, 2, 0},
		"longer":           {8, 12, 4},
		"on both ends":     {6, 12, 4},
		"overlap at start": {4, 8, 4},
		"overlap at end":   {12, 8, 4},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t)
			s.mustMap(t, 8, 8, rw, anon, -1)
			before := s.count(t, "VmSize")
			if c.grows > 0 {
				s.allow(t, unix.RLIMIT_AS, "VmSize", c.grows-1)
				e := s.mmap(c.at, c.pages, ro, anon, -1)
				kit.Say(t, "one page short: %s", kit.ErrnoName(e))
				assert.Equal(t, unix.ENOMEM, e)
				assert.Equal(t, []string{"p8-p16 rw-p 0"}, s.whole(t))
			}
			s.allow(t, unix.RLIMIT_AS, "VmSize", c.grows)
			e := s.mmap(c.at, c.pages, ro, anon, -1)
			kit.Say(t, "enough: %s %v", kit.ErrnoName(e), s.arena.Layout(t, s.Actor))
			assert.Equal(t, unix.Errno(0), e)
			assert.Equal(t, c.grows, s.count(t, "VmSize")-before)
		})
	}
}

// Holes in what is replaced do count.
func TestHolesInTheReplacedRangeCount(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 1, rw, anon, -1)
	s.mustMap(t, 10, 1, ro, shared, -1)
	s.mustMap(t, 13, 2, none, anon, -1)
	s.allow(t, unix.RLIMIT_AS, "VmSize", 3)
	assert.Equal(t, unix.ENOMEM, s.mmap(8, 8, rw, anon, -1))
	kit.Say(t, "%v", s.whole(t))
	s.allow(t, unix.RLIMIT_AS, "VmSize", 4)
	assert.Equal(t, unix.Errno(0), s.mmap(8, 8, rw, anon, -1))
	kit.Say(t, "%v", s.arena.Layout(t, s.Actor))
}

func TestReplacedRangeIsDeductedForShmat(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 10, 4, rw, anon, -1)
	remap := func() unix.Errno {
		return s.Call(unix.SYS_SHMAT, uintptr(s.segment), s.arena.Page(8), shmRemap).Errno
	}
	s.allow(t, unix.RLIMIT_AS, "VmSize", 3)
	assert.Equal(t, unix.ENOMEM, remap())
	assert.Equal(t, []string{"p10-p14 rw-p 0"}, s.whole(t))
	s.allow(t, unix.RLIMIT_AS, "VmSize", 4)
	assert.Equal(t, unix.Errno(0), remap())
}

// What is unmapped can be mapped again.
func TestUnmappedMemoryIsReturned(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 8, rw, anon, -1)
	s.allow(t, unix.RLIMIT_AS, "VmSize", 0)
	require.Equal(t, unix.ENOMEM, s.mmap(0, 1, rw, anon, -1))
	require.Zero(t, s.Munmap(s.arena.Page(10), kit.Len(3)))
	assert.Equal(t, unix.ENOMEM, s.mmap(0, 4, rw, anon, -1))
	assert.Equal(t, unix.Errno(0), s.mmap(0, 3, rw, anon, -1))
	require.Zero(t, s.Mremap(s.arena.Page(8), kit.Len(2), kit.Len(1), 0, 0).Errno, "shrinking returns memory too")
	assert.Equal(t, unix.Errno(0), s.mmap(20, 1, rw, anon, -1))
	assert.Equal(t, unix.ENOMEM, s.mmap(21, 1, rw, anon, -1))
}

// A limit below what there is takes nothing away, and everything that needs no more is allowed.
func TestLimitBelowWhatIsMapped(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 8, rw, anon, -1)
	require.False(t, s.Store(s.arena.Page(8), 7).Faulted())
	s.limit(t, unix.RLIMIT_AS, uint64(kit.Len(1)))
	assert.Equal(t, []string{"07", "00"}, s.arena.Bytes(s.Actor, 8, 2))
	assert.False(t, s.Store(s.arena.Page(15), 1).Faulted(), "what is mapped can be touched")
	assert.Equal(t, unix.ENOMEM, s.mmap(0, 1, rw, anon, -1))
	assert.Equal(t, unix.Errno(0), s.Mprotect(s.arena.Page(9), kit.Len(1), ro))
	assert.Equal(t, unix.Errno(0), s.Munmap(s.arena.Page(11), kit.Len(1)))
	assert.Equal(t, unix.Errno(0), s.Mremap(s.arena.Page(12), kit.Len(4), kit.Len(2), 0, 0).Errno)
	assert.Equal(t, unix.Errno(0), s.Mremap(s.arena.Page(12), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, s.arena.Page(30)).Errno)
	kit.Say(t, "%v", s.arena.Layout(t, s.Actor))
}

// A fraction of a page at the end of the limit is none.
func TestLimitIsInWholePages(t *testing.T) {
	s := newSubject(t)
	bytes := uint64(kit.Len(s.count(t, "VmSize")))
	s.limit(t, unix.RLIMIT_AS, bytes+uint64(kit.Len(1))-1)
	e := s.mmap(8, 1, rw, anon, -1)
	kit.Say(t, "%s", kit.ErrnoName(e))
	assert.Equal(t, unix.ENOMEM, e)
	s.limit(t, unix.RLIMIT_AS, bytes+uint64(kit.Len(1)))
	assert.Equal(t, unix.Errno(0), s.mmap(8, 1, rw, anon, -1))
}

// Of what mremap moves to nothing but the growth counts, whatever is in its place: that is gone by then.
func TestMovedMappingCountsOnce(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 4, rw, anon, -1)
	require.False(t, s.Store(s.arena.Page(8), 7).Faulted())
	s.mustMap(t, 20, 4, ro, shared, -1)
	s.allow(t, unix.RLIMIT_AS, "VmSize", 0)
	e := s.Mremap(s.arena.Page(8), kit.Len(4), kit.Len(4), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, s.arena.Page(20)).Errno
	kit.Say(t, "%s %v", kit.ErrnoName(e), s.arena.Layout(t, s.Actor))
	assert.Equal(t, unix.Errno(0), e)
	assert.Equal(t, []string{"07", "00"}, s.arena.Bytes(s.Actor, 20, 2))
	assert.Equal(t, unix.Errno(0), s.mmap(0, 4, rw, anon, -1), "what was replaced")
	assert.Equal(t, unix.ENOMEM, s.mmap(4, 1, rw, anon, -1))
}

// What mremap leaves mapped counts, though it is empty.
func TestMappingLeftByMremapCounts(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 4, rw, anon, -1)
	leave := func() unix.Errno {
		return s.Mremap(s.arena.Page(8), kit.Len(4), kit.Len(4), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED|unix.MREMAP_DONTUNMAP, s.arena.Page(20)).Errno
	}
	s.allow(t, unix.RLIMIT_AS, "VmSize", 3)
	short := leave()
	s.allow(t, unix.RLIMIT_AS, "VmSize", 4)
	enough := leave()
	kit.Say(t, "%s, %s", kit.ErrnoName(short), kit.ErrnoName(enough))
	assert.Equal(t, unix.ENOMEM, short)
	assert.Equal(t, unix.Errno(0), enough)
}
