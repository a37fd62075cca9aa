// This file holds the ways to fail: calls that would replace pages [i, i+n) if they were allowed to, and the error
// that each gets.
package keep

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

type failure struct {
	name string
	call func(t testing.TB, v *victim, i, n int) unix.Errno
	want unix.Errno

	// gap is set where Linux finds out too late, or did: the old mapping is gone. Who does better may.
	gap bool
	// more is how many pages mremap is to grow by: the call is for so many besides those that it is asked to replace.
	more int
}

// refused is mmap with such arguments.
func refused(name string, prot, flags int, file func(*files) int, want unix.Errno) failure {
	return failure{name: name, want: want, call: func(t testing.TB, v *victim, i, n int) unix.Errno {
		fd := -1
		if file != nil {
			fd = file(v.files)
		}
		return v.mmap(i, n, prot, flags, fd, 0)
	}}
}

// late is a failure that the file system is the first to notice.
func late(f failure) failure {
	f.gap = true
	return f
}

// short is the value of a limit that is one page too low for n pages in the place of what is in [i, i+n), given
// what a field of status counts.
func (v *victim) short(t testing.TB, field string, i, n int) uint64 {
	t.Helper()
	kb, err := strconv.Atoi(strings.TrimSuffix(kit.Status(t, v.Actor, field), " kB"))
	require.NoError(t, err)
	grows := n
	for _, l := range v.arena.Maps(t, v.Actor) {
		if from, to := max(l.Start, v.arena.Page(i)), min(l.End, v.arena.Page(i+n)); from < to {
			grows -= int(to-from) / kit.PageSize
		}
	}
	return uint64(kb)<<10 + uint64(grows*kit.PageSize) - uint64(kit.PageSize)
}

func limited(name string, resource int, field string, prot, flags int) failure {
	return failure{name: name, want: unix.ENOMEM, call: func(t testing.TB, v *victim, i, n int) unix.Errno {
		return v.withLimit(t, resource, v.short(t, field, i, n), func() unix.Errno {
			fd := -1
			if flags&unix.MAP_ANONYMOUS == 0 {
				fd = v.files.disk
			}
			return v.mmap(i, n, prot, flags, fd, 0)
		})
	}}
}

func lockLimited(name string, limit uint64, prot, flags int, want unix.Errno) failure {
	return failure{name: name, want: want, call: func(t testing.TB, v *victim, i, n int) unix.Errno {
		return v.withLimit(t, unix.RLIMIT_MEMLOCK, limit, func() unix.Errno {
			fd := -1
			if flags&unix.MAP_ANONYMOUS == 0 {
				fd = v.files.disk
			}
			return v.mmap(i, n, prot, flags|unix.MAP_LOCKED, fd, 0)
		})
	}}
}

func failures() []failure {
	all := []failure{
		limited("address space limit", unix.RLIMIT_AS, "VmSize", rw, anon),
		limited("address space limit, file", unix.RLIMIT_AS, "VmSize", ro, unix.MAP_SHARED),
		limited("address space limit, shared memory", unix.RLIMIT_AS, "VmSize", rw, shared),
		limited("data limit", unix.RLIMIT_DATA, "VmData", rw, anon),
		limited("data limit, file", unix.RLIMIT_DATA, "VmData", rw, unix.MAP_PRIVATE),
		lockLimited("lock limit", uint64(kit.PageSize), rw, anon, unix.EAGAIN),
		lockLimited("lock limit, file", uint64(kit.PageSize), ro, unix.MAP_SHARED, unix.EAGAIN),
		lockLimited("lock limit of 0", 0, rw, anon, unix.EPERM),
		refused("sealed against writing", rw, unix.MAP_SHARED, func(f *files) int { return f.sealed }, unix.EPERM),
		refused("not open for writing", rw, unix.MAP_SHARED, func(f *files) int { return f.readOnly }, unix.EACCES),
		refused("not open for reading", ro, unix.MAP_PRIVATE, func(f *files) int { return f.writeOnly }, unix.EACCES),
		refused("not open for reading, shared", unix.PROT_WRITE, unix.MAP_SHARED, func(f *files) int { return f.writeOnly }, unix.EACCES),
		refused("open as a path", ro, unix.MAP_PRIVATE, func(f *files) int { return f.path }, unix.EBADF),
		refused("not open", ro, unix.MAP_PRIVATE, nil, unix.EBADF),
		refused("noexec", ro|unix.PROT_EXEC, unix.MAP_PRIVATE, func(f *files) int { return f.noexec }, unix.EPERM),
		refused("noexec, shared", ro|unix.PROT_EXEC, unix.MAP_SHARED, func(f *files) int { return f.noexec }, unix.EPERM),
		refused("directory", ro, unix.MAP_PRIVATE, func(f *files) int { return f.directory }, unix.ENODEV),
		refused("pipe", ro, unix.MAP_SHARED, func(f *files) int { return f.pipe }, unix.ENODEV),
		refused("eventfd", ro, unix.MAP_SHARED, func(f *files) int { return f.event }, unix.ENODEV),
		refused("/dev/null", ro, unix.MAP_PRIVATE, func(f *files) int { return f.null }, unix.ENODEV),
		refused("proc file", ro, unix.MAP_PRIVATE, func(f *files) int { return f.status }, unix.ENODEV),
		late(refused("socket", ro, unix.MAP_SHARED, func(f *files) int { return f.socket }, unix.ENODEV)),
		late(refused("file of sysfs", ro, unix.MAP_SHARED, func(f *files) int { return f.sysfs }, unix.ENODEV)),
		late(refused("file of proc about the machine", ro, unix.MAP_SHARED, func(f *files) int { return f.cpuinfo }, unix.EIO)),
		late(refused("MAP_SYNC without DAX", rw, unix.MAP_SHARED_VALIDATE|unix.MAP_SYNC, func(f *files) int { return f.disk }, unix.EOPNOTSUPP)),
		refused("unknown flag", rw, unix.MAP_SHARED_VALIDATE|1<<24, func(f *files) int { return f.disk }, unix.EOPNOTSUPP),
		refused("neither shared nor private", rw, unix.MAP_ANONYMOUS, nil, unix.EINVAL),
		refused("shared and growing", rw, shared|unix.MAP_GROWSDOWN, nil, unix.EINVAL),
		refused("file and growing", rw, unix.MAP_PRIVATE|unix.MAP_GROWSDOWN, func(f *files) int { return f.disk }, unix.EINVAL),
		refused("noreplace", rw, anon|unix.MAP_FIXED_NOREPLACE, nil, unix.EEXIST),
	}
	return append(append(all, malformed()...), append(byShmat(), append(byMremap(), byLateMremap()...)...)...)
}

// malformed are calls whose numbers make no sense.
func malformed() []failure {
	return []failure{
		{name: "length 0", call: func(t testing.TB, v *victim, i, _ int) unix.Errno { return v.mmap(i, 0, rw, anon, -1, 0) }, want: unix.EINVAL},
		{name: "address not aligned", call: func(t testing.TB, v *victim, i, n int) unix.Errno {
			return v.Mmap(v.arena.Page(i)+1, kit.Len(n), rw, anon|fixed, -1, 0).Errno
		}, want: unix.EINVAL},
		{name: "offset not aligned", call: func(t testing.TB, v *victim, i, n int) unix.Errno {
			return v.Mmap(v.arena.Page(i), kit.Len(n), ro, unix.MAP_SHARED|fixed, v.files.disk, 1).Errno
		}, want: unix.EINVAL},
		{name: "offset that overflows", call: func(t testing.TB, v *victim, i, n int) unix.Errno {
			return v.Mmap(v.arena.Page(i), kit.Len(n), ro, unix.MAP_SHARED|fixed, v.files.disk, -int64(kit.PageSize)).Errno
		}, want: unix.EOVERFLOW},
		{name: "length that overflows", call: func(t testing.TB, v *victim, i, _ int) unix.Errno {
			return v.Mmap(v.arena.Page(i), ^uintptr(0), rw, anon|fixed, -1, 0).Errno
		}, want: unix.ENOMEM},
		{name: "beyond the address space", call: func(t testing.TB, v *victim, i, _ int) unix.Errno {
			return v.Mmap(v.arena.Page(i), 1<<61, rw, anon|fixed, -1, 0).Errno
		}, want: unix.ENOMEM},
	}
}

// byShmat are calls of shmat with SHM_REMAP, which replaces too.
func byShmat() []failure {
	attach := func(id func(*files) int, shift uintptr) func(testing.TB, *victim, int, int) unix.Errno {
		return func(t testing.TB, v *victim, i, _ int) unix.Errno {
			return v.Call(unix.SYS_SHMAT, uintptr(id(v.files)), v.arena.Page(i)+shift, shmRemap).Errno
		}
	}
	return []failure{
		{name: "shmat without permission", call: attach(func(f *files) int { return f.forbidden }, 0), want: unix.EACCES},
		{name: "shmat of no segment", call: attach(func(*files) int { return 1 << 30 }, 0), want: unix.EINVAL},
		{name: "shmat not aligned", call: attach(func(f *files) int { return f.other }, 1), want: unix.EINVAL},
		{name: "shmat under an address space limit", call: func(t testing.TB, v *victim, i, n int) unix.Errno {
			return v.withLimit(t, unix.RLIMIT_AS, v.short(t, "VmSize", i, 8), func() unix.Errno {
				return attach(func(f *files) int { return f.other }, 0)(t, v, i, n)
			})
		}, want: unix.ENOMEM},
	}
}

// byMremap are calls of mremap with MREMAP_FIXED that Linux refuses before it unmaps anything. They move pages
// 12 and 13, of anonymous memory.
func byMremap() []failure {
	const flags = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED
	move := func(from, old, new int) func(testing.TB, *victim, int, int) unix.Errno {
		return func(t testing.TB, v *victim, i, _ int) unix.Errno {
			return v.Mremap(v.arena.Page(from), kit.Len(old), kit.Len(new), flags, v.arena.Page(i)).Errno
		}
	}
	return []failure{
		{name: "mremap of length 0", call: move(12, 2, 0), want: unix.EINVAL},
		{name: "mremap onto itself", call: func(t testing.TB, v *victim, i, n int) unix.Errno {
			return v.Mremap(v.arena.Page(i), kit.Len(n), kit.Len(n), flags, v.arena.Page(i)).Errno
		}, want: unix.EINVAL},
		{name: "mremap not aligned", call: func(t testing.TB, v *victim, i, n int) unix.Errno {
			return v.Mremap(v.arena.Page(12), kit.Len(2), kit.Len(2), flags, v.arena.Page(i)+1).Errno
		}, want: unix.EINVAL},
		{name: "mremap without MAYMOVE", call: func(t testing.TB, v *victim, i, n int) unix.Errno {
			return v.Mremap(v.arena.Page(12), kit.Len(2), kit.Len(2), unix.MREMAP_FIXED, v.arena.Page(i)).Errno
		}, want: unix.EINVAL},
		{name: "mremap that leaves the old, of another length", call: func(t testing.TB, v *victim, i, n int) unix.Errno {
			return v.Mremap(v.arena.Page(12), kit.Len(2), kit.Len(n+2), flags|unix.MREMAP_DONTUNMAP, v.arena.Page(i)).Errno
		}, want: unix.EINVAL},
	}
}

// byLateMremap are those that Linux refused after it had unmapped the place to move to, until 6.17. They are for
// two pages more, since they fail for growing.
func byLateMremap() []failure {
	const flags, more = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED, 2
	move := func(from, old int) func(testing.TB, *victim, int, int) unix.Errno {
		return func(t testing.TB, v *victim, i, n int) unix.Errno {
			return v.Mremap(v.arena.Page(from), kit.Len(old), kit.Len(n+more), flags, v.arena.Page(i)).Errno
		}
	}
	under := func(resource int) func(testing.TB, *victim, int, int) unix.Errno {
		return func(t testing.TB, v *victim, i, n int) unix.Errno {
			return v.withLimit(t, resource, uint64(kit.PageSize), func() unix.Errno { return move(12, 2)(t, v, i, n) })
		}
	}
	return []failure{
		{name: "mremap of nothing", call: move(10, 1), want: unix.EFAULT, gap: true, more: more},
		{name: "mremap of too much", call: move(13, 2), want: unix.EFAULT, gap: true, more: more},
		{name: "mremap of a copy of private memory", call: move(12, 0), want: unix.EINVAL, gap: true, more: more},
		{name: "mremap under an address space limit", call: under(unix.RLIMIT_AS), want: unix.ENOMEM, gap: true, more: more},
		{name: "mremap under a data limit", call: under(unix.RLIMIT_DATA), want: unix.ENOMEM, gap: true, more: more},
	}
}
