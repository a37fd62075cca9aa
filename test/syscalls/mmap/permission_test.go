// Claims which files can be mapped at all, and with which protection, given how they were opened.
package mmap

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// A mapping needs a descriptor open for reading; a shared one that may write needs it open for writing.
func TestOpenModeDecidesProtection(t *testing.T) {
	for mode, m := range map[string]int{"O_RDONLY": unix.O_RDONLY, "O_WRONLY": unix.O_WRONLY, "O_RDWR": unix.O_RDWR, "O_RDWR|O_APPEND": unix.O_RDWR | unix.O_APPEND} {
		for kind, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
			for protection, prot := range map[string]int{"none": none, "read": ro, "write": unix.PROT_WRITE, "read and write": rw} {
				want := unix.Errno(0)
				if m == unix.O_WRONLY || flags == unix.MAP_SHARED && m == unix.O_RDONLY && prot&unix.PROT_WRITE != 0 {
					want = unix.EACCES
				}
				for _, d := range kit.Dirs() {
					t.Run(mode+" "+kind+" "+protection+" "+d.Name, func(t *testing.T) {
						a := kit.NewArena(t, 1)
						fd := kit.Open(t, d.NamedFile(t, 1), m)
						r := kit.Me.Mmap(a.Base, kit.Len(1), prot, flags|fixed, fd, 0)
						kit.Say(t, "%s %v", kit.ErrnoName(r.Errno), ranges(t, a, kit.Me))
						assert.Equal(t, want, r.Errno)
					})
				}
			}
		}
	}
}

// What the descriptor does not allow, mprotect does not either, also when the descriptor is closed.
func TestSharedMappingOfReadOnlyDescriptorStaysReadOnly(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 1)
		path := d.NamedFile(t, 1)
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		require.NoError(t, err)
		a.Map(t, 0, 1, ro, unix.MAP_SHARED, fd, 0)
		require.NoError(t, unix.Close(fd))
		kit.Say(t, "%s", kit.ErrnoName(kit.Me.Mprotect(a.Base, kit.Len(1), rw)))
		assert.Equal(t, unix.EACCES, kit.Me.Mprotect(a.Base, kit.Len(1), rw))
		assert.Equal(t, unix.Errno(0), kit.Me.Mprotect(a.Base, kit.Len(1), none))
	})
}

// A private mapping may be written whatever the descriptor says; the file does not see it.
func TestPrivateMappingOfReadOnlyDescriptorIsWritable(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 1)
		fd := kit.Open(t, d.NamedFile(t, 1), unix.O_RDONLY)
		a.Map(t, 0, 1, rw, unix.MAP_PRIVATE, fd, 0)
		assert.False(t, kit.Me.Store(a.Base, 7).Faulted())
		kit.Say(t, "mapping %v, file %s", a.Bytes(kit.Me, 0, 1), fileByte(t, fd, 0))
		assert.Equal(t, []string{"07"}, a.Bytes(kit.Me, 0, 1))
		assert.Equal(t, "41", fileByte(t, fd, 0))
	})
}

// Whoever has the descriptor may map: the permissions of the file counted when it was opened.
func TestFilePermissionsCountAtOpenOnly(t *testing.T) {
	a := kit.NewArena(t, 1)
	fd := kit.File(t, 1)
	require.NoError(t, unix.Fchmod(fd, 0))
	child := unprivileged(t)
	r := child.Mmap(a.Base, kit.Len(1), rw, unix.MAP_SHARED|fixed, fd, 0)
	kit.Say(t, "%s", kit.ErrnoName(r.Errno))
	assert.True(t, r.OK())
	assert.False(t, child.Store(a.Base, 7).Faulted())
}

func TestFilesThatCannotBeMapped(t *testing.T) {
	open := func(path string, flags int) func(t *testing.T) int {
		return func(t *testing.T) int { return kit.Open(t, path, flags) }
	}
	for name, c := range map[string]struct {
		fd   func(t *testing.T) int
		want unix.Errno
	}{
		"O_PATH":             {func(t *testing.T) int { return kit.Open(t, kit.Dirs()[0].NamedFile(t, 1), unix.O_PATH) }, unix.EBADF},
		"directory on disk":  {func(t *testing.T) int { return kit.Open(t, kit.Dirs()[0].Path, unix.O_RDONLY) }, unix.ENODEV},
		"directory on tmpfs": {func(t *testing.T) int { return kit.Open(t, kit.Dirs()[1].Path, unix.O_RDONLY) }, unix.ENODEV},
		"pipe for reading":   {func(t *testing.T) int { r, _ := kit.Pipe(t); return r }, unix.ENODEV},
		"pipe for writing":   {func(t *testing.T) int { _, w := kit.Pipe(t); return w }, unix.EACCES},
		"/dev/null":          {open("/dev/null", unix.O_RDWR), unix.ENODEV},
		"/dev/urandom":       {open("/dev/urandom", unix.O_RDONLY), unix.ENODEV},
		"proc directory":     {open("/proc/self", unix.O_RDONLY), unix.ENODEV},
		"socket": {func(t *testing.T) int {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
			return pair[0]
		}, unix.ENODEV},
		"eventfd": {func(t *testing.T) int {
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
			require.NoError(t, err)
			t.Cleanup(func() { unix.Close(fd) })
			return fd
		}, unix.ENODEV},
		"epoll": {func(t *testing.T) int {
			fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
			require.NoError(t, err)
			t.Cleanup(func() { unix.Close(fd) })
			return fd
		}, unix.ENODEV},
	} {
		for kind, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
			t.Run(name+" "+kind, func(t *testing.T) {
				a := kit.NewArena(t, 1)
				a.Anon(t, 0, 1, rw, 0)
				a.Fill(t, 0, 1, 5)
				r := kit.Me.Mmap(a.Base, kit.Len(1), ro, flags|fixed, c.fd(t), 0)
				kit.Say(t, "%s", kit.ErrnoName(r.Errno))
				assert.Equal(t, c.want, r.Errno)
			})
		}
	}
}

// On a file system mounted noexec nothing is mapped to be executed, now or later.
func TestNoexec(t *testing.T) {
	for kind, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.Run(kind, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			path := mounted(t, unix.MS_NOEXEC).NamedFile(t, 1)
			fd, err := unix.Open(path, unix.O_RDWR, 0)
			require.NoError(t, err)
			r := kit.Me.Mmap(a.Base, kit.Len(1), rx, flags|fixed, fd, 0)
			kit.Say(t, "PROT_EXEC: %s", kit.ErrnoName(r.Errno))
			assert.Equal(t, unix.EPERM, r.Errno)
			a.Map(t, 0, 1, rw, flags, fd, 0)
			e := kit.Me.Mprotect(a.Base, kit.Len(1), rx)
			kit.Say(t, "mprotect: %s", kit.ErrnoName(e))
			assert.Equal(t, unix.EACCES, e)
			require.Zero(t, kit.Me.Munmap(a.Base, kit.Len(1)))
			require.NoError(t, unix.Close(fd))
		})
	}
}

// Without noexec a file need not be executable to be mapped so.
func TestExecOfAFileWithoutExecutePermission(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 1)
		fd := codeFile(t, d)
		require.NoError(t, unix.Fchmod(fd, 0o600))
		a.Map(t, 0, 1, rx, unix.MAP_PRIVATE, fd, 0)
		got := kit.Me.Exec(a.Base)
		kit.Say(t, "%v", got.Faulted())
		assert.False(t, got.Faulted())
	})
}

// /dev/zero mapped private is anonymous memory, mapped shared it is shared memory of its own.
func TestDevZero(t *testing.T) {
	for kind, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.Run(kind, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			fd := kit.Open(t, "/dev/zero", unix.O_RDWR)
			a.Map(t, 0, 2, rw, flags, fd, 0)
			a.Map(t, 2, 2, rw, flags, fd, 0)
			assert.Equal(t, []string{"00", "00", "00", "00"}, a.Bytes(kit.Me, 0, 4))
			a.Fill(t, 0, 1, 5)
			child := kit.Fork(t)
			a.Fill(t, 0, 2, 6)
			kit.Say(t, "parent %v child %v", a.Bytes(kit.Me, 0, 4), a.Bytes(child, 0, 4))
			assert.Equal(t, []string{"06", "07", "00", "00"}, a.Bytes(kit.Me, 0, 4))
			want := []string{"05", "00", "00", "00"}
			if flags == unix.MAP_SHARED {
				want = []string{"06", "07", "00", "00"}
			}
			assert.Equal(t, want, a.Bytes(child, 0, 4))
		})
	}
}

// Its size does not matter.
func TestDevZeroAtAnyOffset(t *testing.T) {
	a := kit.NewArena(t, 1)
	fd := kit.Open(t, "/dev/zero", unix.O_RDWR)
	a.Map(t, 0, 1, rw, unix.MAP_PRIVATE, fd, 1<<20)
	assert.False(t, kit.Me.Store(a.Base, 1).Faulted())
	a.Map(t, 0, 1, rw, unix.MAP_SHARED, fd, 0)
	assert.False(t, kit.Me.Store(a.Base, 1).Faulted())
}

func TestNameOfDevZero(t *testing.T) {
	for kind, c := range map[string]struct {
		flags int
		name  string
	}{"private": {unix.MAP_PRIVATE, "/dev/zero"}, "shared": {unix.MAP_SHARED, "/dev/zero (deleted)"}} {
		t.Run(kind, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Map(t, 0, 1, rw, c.flags, kit.Open(t, "/dev/zero", unix.O_RDWR), 0)
			name := a.Maps(t, kit.Me)[0].Name
			kit.Say(t, "%s", name)
			assert.Equal(t, c.name, name)
		})
	}
}

// A descriptor of /dev/zero open for reading only.
func TestDevZeroReadOnly(t *testing.T) {
	a := kit.NewArena(t, 1)
	fd := kit.Open(t, "/dev/zero", unix.O_RDONLY)
	r := kit.Me.Mmap(a.Base, kit.Len(1), rw, unix.MAP_SHARED|fixed, fd, 0)
	kit.Say(t, "%s", kit.ErrnoName(r.Errno))
	assert.Equal(t, unix.EACCES, r.Errno)
	a.Map(t, 0, 1, rw, unix.MAP_PRIVATE, fd, 0)
	assert.False(t, kit.Me.Store(a.Base, 1).Faulted())
}
