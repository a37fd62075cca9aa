// These tests claim which operations each seal refuses, and with which error, and that it allows the rest.
package memfd

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// operations are tried on a file of four pages, mapped for reading at page 4 if mapping is what they are
// about.
var operations = []struct {
	name string
	do   func(t *testing.T, a *kit.Arena, fd int) unix.Errno
}{
	{"write", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno { return pwrite(fd, 0) }},
	{"write at the end", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno { return pwrite(fd, kit.Len(4)) }},
	{"shrink", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno { return truncate(fd, kit.Len(2)) }},
	{"grow", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno { return truncate(fd, kit.Len(5)) }},
	{"truncate to its size", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno { return truncate(fd, kit.Len(4)) }},
	{"allocate inside", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno { return allocate(fd, 0, 0, 1) }},
	{"allocate beyond", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno { return allocate(fd, 0, 4, 1) }},
	{"punch a hole", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno {
		return allocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1, 1)
	}},
	{"map shared for writing", func(_ *testing.T, a *kit.Arena, fd int) unix.Errno {
		return mmap(a, 0, 4, kit.RW, unix.MAP_SHARED, fd)
	}},
	{"map shared for reading", func(_ *testing.T, a *kit.Arena, fd int) unix.Errno {
		return mmap(a, 0, 4, unix.PROT_READ, unix.MAP_SHARED, fd)
	}},
	{"map shared, and protect for writing", func(t *testing.T, a *kit.Arena, fd int) unix.Errno {
		require.Zero(t, mmap(a, 0, 4, unix.PROT_READ, unix.MAP_SHARED, fd))
		return kit.Me.Mprotect(a.Page(0), kit.Len(4), kit.RW)
	}},
	{"map private and write", func(t *testing.T, a *kit.Arena, fd int) unix.Errno {
		require.Zero(t, mmap(a, 0, 4, kit.RW, unix.MAP_PRIVATE, fd))
		a.Fill(t, 0, 4, 1)
		require.Equal(t, "01 02 03 04", contents(a, 0, 4))
		return 0
	}},
	{"change the mode for execution", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno { return chmod(fd, 0o600) }},
	{"change the mode otherwise", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno { return chmod(fd, 0o711) }},
	{"seal more", func(_ *testing.T, _ *kit.Arena, fd int) unix.Errno { return seal(fd, unix.F_SEAL_SEAL) }},
}

func pwrite(fd int, at uintptr) unix.Errno {
	return errnoOf(unix.Pwrite(fd, []byte("w"), int64(at)))
}

func errnoOf(_ int, err error) unix.Errno {
	if err == nil {
		return 0
	}
	return err.(unix.Errno)
}

func truncate(fd int, size uintptr) unix.Errno {
	return kit.Me.Call(unix.SYS_FTRUNCATE, uintptr(fd), size).Errno
}

func allocate(fd, mode, page, n int) unix.Errno {
	return kit.Me.Call(unix.SYS_FALLOCATE, uintptr(fd), uintptr(mode), kit.Len(page), kit.Len(n)).Errno
}

func chmod(fd int, mode uintptr) unix.Errno {
	return kit.Me.Call(unix.SYS_FCHMOD, uintptr(fd), mode).Errno
}

func TestSealRefuses(t *testing.T) {
	const eperm = unix.EPERM
	for _, c := range []struct {
		name    string
		seals   int
		refused map[string]unix.Errno
	}{
		{"nothing", 0, nil},
		{"SEAL", unix.F_SEAL_SEAL, map[string]unix.Errno{"seal more": eperm}},
		{"SHRINK", unix.F_SEAL_SHRINK, map[string]unix.Errno{"shrink": eperm}},
		{"GROW", unix.F_SEAL_GROW, map[string]unix.Errno{"grow": eperm, "write at the end": eperm, "allocate beyond": eperm}},
		{"WRITE", unix.F_SEAL_WRITE, map[string]unix.Errno{
			"write": eperm, "write at the end": eperm, "punch a hole": eperm,
			"map shared for writing": eperm, "map shared, and protect for writing": unix.EACCES,
		}},
		{"FUTURE_WRITE", unix.F_SEAL_FUTURE_WRITE, map[string]unix.Errno{
			"write": eperm, "write at the end": eperm, "punch a hole": eperm,
			"map shared for writing": eperm, "map shared, and protect for writing": unix.EACCES,
		}},
		{"EXEC", unix.F_SEAL_EXEC, map[string]unix.Errno{
			"change the mode for execution": eperm, "change the mode otherwise": 0,
			// A file that is executable and may stay so could have its code changed.
			"write": eperm, "write at the end": eperm, "shrink": eperm, "grow": eperm, "allocate beyond": eperm, "punch a hole": eperm,
			"map shared for writing": eperm, "map shared, and protect for writing": unix.EACCES,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, op := range operations {
				t.Run(op.name, func(t *testing.T) {
					a := kit.NewArena(t, 4)
					fd := sealable(t, 4)
					mustSeal(t, fd, c.seals)
					got := op.do(t, a, fd)
					assert.Equal(t, c.refused[op.name], got, kit.ErrnoName(got))
					kit.Say(t, "%s", kit.ErrnoName(got))
				})
			}
		})
	}
}

func TestSealsAddUp(t *testing.T) {
	fd := sealable(t, 1)
	for _, s := range []int{unix.F_SEAL_SHRINK, unix.F_SEAL_GROW, unix.F_SEAL_WRITE, unix.F_SEAL_SHRINK, 0, unix.F_SEAL_SEAL} {
		mustSeal(t, fd, s)
		kit.Say(t, "%s", seals(t, fd))
	}
	assert.Equal(t, "SEAL SHRINK GROW WRITE", seals(t, fd))
}

func TestSealsAreOfTheFile(t *testing.T) {
	fd := sealable(t, 1)
	other := reopened(t, fd, unix.O_RDWR)
	mustSeal(t, other, unix.F_SEAL_GROW)
	assert.Equal(t, "GROW", seals(t, fd))
	assert.Equal(t, unix.EPERM, truncate(fd, kit.Len(2)))
	child := kit.Fork(t)
	require.Zero(t, child.Call(unix.SYS_FCNTL, uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK).Errno)
	assert.Equal(t, "SHRINK GROW", seals(t, fd))
}

func TestSealingIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		fd   func(t *testing.T) int
		add  int
		want unix.Errno
	}{
		{"of a file made without leave", func(t *testing.T) int { return kit.Memfd(t, 1, 0) }, unix.F_SEAL_GROW, unix.EPERM},
		{"of a descriptor for reading", func(t *testing.T) int { return reopened(t, sealable(t, 1), unix.O_RDONLY) }, unix.F_SEAL_GROW, unix.EPERM},
		{"of a file on disk", func(t *testing.T) int { return kit.File(t, 1) }, unix.F_SEAL_GROW, unix.EINVAL},
		{"of a file on tmpfs", func(t *testing.T) int { return kit.Dirs()[1].File(t, 1) }, unix.F_SEAL_GROW, unix.EPERM},
		{"of a pipe", func(t *testing.T) int { _, w := kit.Pipe(t); return w }, unix.F_SEAL_GROW, unix.EINVAL},
		{"with an unknown seal", func(t *testing.T) int { return sealable(t, 1) }, 0x40, unix.EINVAL},
		{"with a negative seal", func(t *testing.T) int { return sealable(t, 1) }, -1, unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := seal(c.fd(t), c.add)
			assert.Equal(t, c.want, got, kit.ErrnoName(got))
			kit.Say(t, "%s", kit.ErrnoName(got))
		})
	}
}
