// What RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK and RLIMIT_STACK promise. All of it happens in forked children,
// whose limits are set from outside. This file holds what the other files of the suite share.
package limits

import (
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	anon   = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	shared = unix.MAP_SHARED | unix.MAP_ANONYMOUS
	fixed  = unix.MAP_FIXED
	none   = unix.PROT_NONE
	ro     = unix.PROT_READ
	rw     = kit.RW

	unlimited = unix.RLIM_INFINITY

	shmRemap = 0o40000 // SHM_REMAP
)

// A subject is a child under limits, and what it needs: made before it is forked, so that it has them.
type subject struct {
	*kit.Actor
	arena   *kit.Arena
	file    int // eight pages
	segment int // of shared memory, eight pages
	heap    uintptr
}

// Arguments of capset(2) that leave no capability. They are variables of the package, so that a forked child
// finds them where they are here.
var (
	capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	noCaps    [2]unix.CapUserData
)

// newSubject forks a child without capabilities, with an arena of 64 pages.
func newSubject(t testing.TB) *subject {
	t.Helper()
	s := &subject{arena: kit.NewArena(t, 64), file: kit.File(t, 8)}
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, int(kit.Len(8)), unix.IPC_CREAT|0o600)
	require.NoError(t, err)
	t.Cleanup(func() { unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	s.segment = id
	s.Actor = kit.Fork(t)
	r := s.Call(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&noCaps)))
	require.True(t, r.OK(), "capset: %v", r)
	s.heap = s.Brk(0)
	return s
}

// limit sets a soft limit of the child; the hard one stays, so that who may not raise it can come back.
func (s *subject) limit(t testing.TB, resource int, value uint64) {
	t.Helper()
	setSoft(t, s.Pid(), resource, value)
}

func setSoft(t testing.TB, pid, resource int, value uint64) {
	t.Helper()
	var l unix.Rlimit
	require.NoError(t, unix.Prlimit(pid, resource, nil, &l))
	l.Cur = min(value, l.Max)
	require.NoError(t, unix.Prlimit(pid, resource, &l, nil))
}

// count is a field of the child's status that counts memory, in pages.
func (s *subject) count(t testing.TB, field string) int {
	t.Helper()
	text := kit.Status(t, s.Actor, field)
	kb, err := strconv.Atoi(strings.TrimSuffix(text, " kB"))
	require.NoError(t, err, "%s: %q", field, text)
	return kb * 1024 / kit.PageSize
}

// allow limits the child to what a field counts now and so many pages more.
func (s *subject) allow(t testing.TB, resource int, field string, pages int) {
	t.Helper()
	s.limit(t, resource, uint64(kit.Len(s.count(t, field)+pages)))
}

// whole is the layout of the child's arena in which a mapping that a failed call left split is one again.
func (s *subject) whole(t testing.TB) []string {
	t.Helper()
	var lines []kit.Line
	for _, l := range s.arena.Maps(t, s.Actor) {
		if n := len(lines); n > 0 && l.Inode == 0 && lines[n-1].Inode == 0 && lines[n-1].End == l.Start && lines[n-1].Perms == l.Perms {
			lines[n-1].End = l.End
			continue
		}
		lines = append(lines, l)
	}
	var layout []string
	for _, l := range lines {
		layout = append(layout, s.arena.Show(l))
	}
	return layout
}

// mmap maps pages [i, i+n) of the arena.
func (s *subject) mmap(i, n, prot, flags, fd int) unix.Errno {
	return s.Mmap(s.arena.Page(i), kit.Len(n), prot, flags|fixed, fd, 0).Errno
}

// mustMap is mmap that has to work.
func (s *subject) mustMap(t testing.TB, i, n, prot, flags, fd int) {
	t.Helper()
	require.Zero(t, s.mmap(i, n, prot, flags, fd))
}

// A way is one way to get n pages more. prepare comes before the limit.
type way struct {
	prepare func(t testing.TB, s *subject)
	grow    func(s *subject, n int) unix.Errno
}

func mapping(prot, flags int) way {
	return way{grow: func(s *subject, n int) unix.Errno {
		fd := -1
		if flags&unix.MAP_ANONYMOUS == 0 {
			fd = s.file
		}
		return s.mmap(8, n, prot, flags, fd)
	}}
}

// ways are those to get private memory that can be written, which all limits of size bound.
func ways() map[string]way {
	one := func(t testing.TB, s *subject) { s.mustMap(t, 8, 1, rw, anon, -1) }
	return map[string]way{
		"mmap":              mapping(rw, anon),
		"mmap populated":    mapping(rw, anon|unix.MAP_POPULATE),
		"mmap no reserve":   mapping(rw, anon|unix.MAP_NORESERVE),
		"mmap private file": mapping(rw, unix.MAP_PRIVATE),
		"mmap anywhere": {grow: func(s *subject, n int) unix.Errno {
			return s.Mmap(0, kit.Len(n), rw, anon, -1, 0).Errno
		}},
		"mmap noreplace": {grow: func(s *subject, n int) unix.Errno {
			return s.Mmap(s.arena.Page(8), kit.Len(n), rw, anon|unix.MAP_FIXED_NOREPLACE, -1, 0).Errno
		}},
		"mremap in place": {one, func(s *subject, n int) unix.Errno {
			return s.Mremap(s.arena.Page(8), kit.Len(1), kit.Len(n+1), 0, 0).Errno
		}},
		"mremap moving": {one, func(s *subject, n int) unix.Errno {
			return s.Mremap(s.arena.Page(8), kit.Len(1), kit.Len(n+1), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, s.arena.Page(32)).Errno
		}},
		"brk": {grow: func(s *subject, n int) unix.Errno {
			if end := s.heap + kit.Len(n); s.Brk(end) != end {
				return unix.ENOMEM
			}
			return 0
		}},
	}
}

// shmat attaches the segment, whole, at page 8.
func (s *subject) shmat() unix.Errno {
	return s.Call(unix.SYS_SHMAT, uintptr(s.segment), s.arena.Page(8), 0).Errno
}
