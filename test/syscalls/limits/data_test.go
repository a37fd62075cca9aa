// Claims that RLIMIT_DATA bounds private memory that can be written (Linux 4.7), and which memory that is.
package limits

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestDataLimitIsExact(t *testing.T) {
	for name, w := range ways() {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t)
			if w.prepare != nil {
				w.prepare(t, s)
			}
			before, layout := s.count(t, "VmData"), s.whole(t)
			s.allow(t, unix.RLIMIT_DATA, "VmData", 4)
			more := w.grow(s, 5)
			assert.Equal(t, unix.ENOMEM, more)
			assert.Equal(t, before, s.count(t, "VmData"))
			assert.Equal(t, layout, s.whole(t))
			exactly := w.grow(s, 4)
			kit.Say(t, "5 pages: %s, 4 pages: %s", kit.ErrnoName(more), kit.ErrnoName(exactly))
			assert.Equal(t, unix.Errno(0), exactly)
			assert.Equal(t, 4, s.count(t, "VmData")-before)
			assert.Equal(t, unix.ENOMEM, s.mmap(0, 1, rw, anon, -1), "now it is full")
		})
	}
}

// What is shared, or cannot be written, or is a stack, is no data.
func TestWhatIsNotData(t *testing.T) {
	for name, w := range map[string]way{
		"to read":              mapping(ro, anon),
		"no access":            mapping(none, anon),
		"to execute":           mapping(ro|unix.PROT_EXEC, anon),
		"shared":               mapping(rw, shared),
		"shared file":          mapping(rw, unix.MAP_SHARED),
		"private file to read": mapping(ro, unix.MAP_PRIVATE),
		"grows down":           mapping(rw, anon|unix.MAP_GROWSDOWN),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t)
			before := s.count(t, "VmData")
			s.allow(t, unix.RLIMIT_DATA, "VmData", 0)
			e := w.grow(s, 8)
			kit.Say(t, "%s, VmData %+d", kit.ErrnoName(e), s.count(t, "VmData")-before)
			assert.Equal(t, unix.Errno(0), e)
			assert.Equal(t, before, s.count(t, "VmData"))
		})
	}
}

func TestSharedSegmentIsNotData(t *testing.T) {
	s := newSubject(t)
	s.allow(t, unix.RLIMIT_DATA, "VmData", 0)
	e := s.shmat()
	kit.Say(t, "%s", kit.ErrnoName(e))
	assert.Equal(t, unix.Errno(0), e)
}

// Data over data counts what it is longer by.
func TestReplacedDataIsDeducted(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 8, rw, anon, -1)
	s.allow(t, unix.RLIMIT_DATA, "VmData", 2)
	assert.Equal(t, unix.ENOMEM, s.mmap(8, 11, rw, anon, -1))
	kit.Say(t, "%v", s.whole(t))
	assert.Equal(t, unix.Errno(0), s.mmap(8, 8, rw, anon, -1))
	assert.Equal(t, unix.Errno(0), s.mmap(8, 10, rw, unix.MAP_PRIVATE, s.file))
	assert.Equal(t, unix.ENOMEM, s.mmap(0, 1, rw, anon, -1))
}

// Memory becomes data when it becomes writable.
func TestMprotectMakesData(t *testing.T) {
	for name, c := range map[string]struct {
		prot, flags int
		want        unix.Errno
	}{
		"anonymous":    {ro, anon, unix.ENOMEM},
		"no access":    {none, anon, unix.ENOMEM},
		"private file": {ro, unix.MAP_PRIVATE, unix.ENOMEM},
		"shared":       {ro, shared, 0},
		"grows down":   {ro, anon | unix.MAP_GROWSDOWN, 0},
		"data already": {rw, anon, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t)
			fd := -1
			if c.flags&unix.MAP_ANONYMOUS == 0 {
				fd = s.file
			}
			s.mustMap(t, 8, 5, c.prot, c.flags, fd)
			before := s.count(t, "VmData")
			s.allow(t, unix.RLIMIT_DATA, "VmData", 4)
			e := s.Mprotect(s.arena.Page(8), kit.Len(5), rw)
			kit.Say(t, "%s %d", kit.ErrnoName(e), len(s.arena.Maps(t, s.Actor)))
			assert.Equal(t, c.want, e)
			if c.want != 0 {
				assert.Equal(t, before, s.count(t, "VmData"))
				assert.Equal(t, unix.Errno(0), s.Mprotect(s.arena.Page(9), kit.Len(4), rw), "four fit")
				assert.Equal(t, 4, s.count(t, "VmData")-before)
			}
		})
	}
}

// Memory that is data no more makes room.
func TestMprotectReturnsData(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 8, rw, anon, -1)
	s.allow(t, unix.RLIMIT_DATA, "VmData", 0)
	require.Equal(t, unix.ENOMEM, s.mmap(0, 1, rw, anon, -1))
	require.Zero(t, s.Mprotect(s.arena.Page(8), kit.Len(3), ro))
	assert.Equal(t, unix.ENOMEM, s.mmap(0, 4, rw, anon, -1))
	assert.Equal(t, unix.Errno(0), s.mmap(0, 3, rw, anon, -1))
	e := s.Mprotect(s.arena.Page(8), kit.Len(3), rw)
	kit.Say(t, "%s", kit.ErrnoName(e))
	assert.Equal(t, unix.ENOMEM, e)
}

// A change of several mappings that runs into the limit has changed those below.
func TestMprotectStopsAtTheLimit(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 2, ro, anon, -1)
	s.mustMap(t, 10, 2, none, anon, -1)
	s.allow(t, unix.RLIMIT_DATA, "VmData", 3)
	e := s.Mprotect(s.arena.Page(8), kit.Len(4), rw)
	kit.Say(t, "%s %v", kit.ErrnoName(e), s.arena.Layout(t, s.Actor))
	assert.Equal(t, unix.ENOMEM, e)
	assert.Equal(t, []string{"p8-p10 rw-p 0", "p10-p12 ---p 0"}, s.arena.Layout(t, s.Actor))
}

// What is over the limit already may stay, and be touched, and shrink.
func TestLimitBelowTheData(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 4, rw, anon, -1)
	s.limit(t, unix.RLIMIT_DATA, uint64(kit.Len(1)))
	assert.False(t, s.Store(s.arena.Page(9), 1).Faulted())
	assert.Equal(t, unix.ENOMEM, s.mmap(0, 1, rw, anon, -1))
	assert.Equal(t, unix.Errno(0), s.mmap(0, 1, ro, anon, -1))
	assert.Equal(t, unix.Errno(0), s.Munmap(s.arena.Page(10), kit.Len(1)))
	assert.Equal(t, unix.Errno(0), s.Mprotect(s.arena.Page(8), kit.Len(1), ro))
	kit.Say(t, "%v", s.arena.Layout(t, s.Actor))
}

// A soft limit of 0 means the hard limit, which is how old debuggers ask for it.
func TestSoftLimitOfZeroMeansTheHardLimit(t *testing.T) {
	s := newSubject(t)
	hard := uint64(kit.Len(s.count(t, "VmData") + 4))
	require.NoError(t, unix.Prlimit(s.Pid(), unix.RLIMIT_DATA, &unix.Rlimit{Cur: 0, Max: hard}, nil))
	more, exactly := s.mmap(8, 5, rw, anon, -1), s.mmap(8, 4, rw, anon, -1)
	kit.Say(t, "5 pages: %s, 4 pages: %s", kit.ErrnoName(more), kit.ErrnoName(exactly))
	assert.Equal(t, unix.ENOMEM, more)
	assert.Equal(t, unix.Errno(0), exactly)
}

// The heap alone is compared too: brk obeys a soft limit of 0.
func TestHeapUnderASoftLimitOfZero(t *testing.T) {
	s := newSubject(t)
	require.NoError(t, unix.Prlimit(s.Pid(), unix.RLIMIT_DATA, &unix.Rlimit{Cur: 0, Max: unlimited}, nil))
	got := s.Brk(s.heap + kit.Len(1))
	kit.Say(t, "grew %d", got-s.heap)
	assert.Equal(t, s.heap, got)
}
