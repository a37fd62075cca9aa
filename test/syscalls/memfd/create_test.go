// These tests claim what memfd_create accepts, and what the file is like that it makes.
package memfd

import (
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// create is memfd_create by number. The file is closed after the test.
func create(t *testing.T, name string, flags int) kit.Result {
	text, err := unix.BytePtrFromString(name)
	require.NoError(t, err)
	r := kit.Me.Call(unix.SYS_MEMFD_CREATE, uintptr(unsafe.Pointer(text)), uintptr(flags))
	runtime.KeepAlive(text)
	if r.OK() {
		t.Cleanup(func() { unix.Close(int(r.Value)) })
	}
	return r
}

func TestCreate(t *testing.T) {
	for _, c := range []struct {
		name  string
		file  string
		flags int
		want  unix.Errno
	}{
		{"no flags", "a", 0, 0},
		{"no name", "", 0, 0},
		{"longest name", strings.Repeat("n", 249), 0, 0},
		{"name too long", strings.Repeat("n", 250), 0, unix.EINVAL},
		{"name with slashes", "a/b", 0, 0},
		{"NOEXEC_SEAL", "a", unix.MFD_NOEXEC_SEAL, 0},
		{"EXEC", "a", unix.MFD_EXEC, 0},
		{"EXEC and NOEXEC_SEAL", "a", unix.MFD_EXEC | unix.MFD_NOEXEC_SEAL, unix.EINVAL},
		{"unknown flag", "a", 0x20, unix.EINVAL},
		{"size of huge pages without HUGETLB", "a", 21 << unix.MFD_HUGE_SHIFT, unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := create(t, c.file, c.flags)
			assert.Equal(t, c.want, r.Errno, kit.ErrnoName(r.Errno))
			kit.Say(t, "%s", kit.ErrnoName(r.Errno))
		})
	}
	t.Run("name that is not mapped", func(t *testing.T) {
		a := kit.NewArena(t, 1)
		assert.Equal(t, unix.EFAULT, kit.Me.Call(unix.SYS_MEMFD_CREATE, a.Page(0), 0).Errno)
	})
}

func TestSealsAtFirst(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags int
		want  string
	}{
		{"no flags", 0, "SEAL"},
		{"ALLOW_SEALING", unix.MFD_ALLOW_SEALING, ""},
		{"NOEXEC_SEAL", unix.MFD_NOEXEC_SEAL, "EXEC"},
		{"EXEC", unix.MFD_EXEC, "SEAL"},
		{"EXEC and ALLOW_SEALING", unix.MFD_EXEC | unix.MFD_ALLOW_SEALING, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := create(t, "a", c.flags)
			require.True(t, r.OK(), r)
			assert.Equal(t, c.want, seals(t, int(r.Value)))
			kit.Say(t, "%s", seals(t, int(r.Value)))
		})
	}
}

func TestNewFileIsEmptyAndCanBeReadAndWritten(t *testing.T) {
	fd := int(create(t, "a", unix.MFD_CLOEXEC).Value)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &st))
	assert.Zero(t, st.Size)
	assert.Equal(t, uint32(unix.S_IFREG|0o777), st.Mode)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	require.NoError(t, err)
	assert.Equal(t, unix.O_RDWR, flags&unix.O_ACCMODE)
	flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	require.NoError(t, err)
	assert.Equal(t, unix.FD_CLOEXEC, flags)
}

func TestNewFileHasNoLinks(t *testing.T) {
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(kit.Memfd(t, 0, 0), &st))
	assert.Zero(t, st.Nlink)
}

func TestNameShowsInMaps(t *testing.T) {
	a := kit.NewArena(t, 4)
	fd := kit.Memfd(t, 2, 0)
	a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
	a.Map(t, 2, 2, kit.RW, unix.MAP_PRIVATE, fd, 0)
	var names []string
	for _, l := range a.Maps(t, kit.Me) {
		names = append(names, l.Perms+" "+l.Name)
	}
	assert.Equal(t, []string{"rw-s /memfd:kit (deleted)", "rw-p /memfd:kit (deleted)"}, names)
	kit.Say(t, "%v", names)
}

func TestFilesOfOneNameAreDifferent(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
	a.Map(t, 1, 1, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
	a.Fill(t, 0, 1, 7)
	assert.Equal(t, "07 41", contents(a, 0, 2))
}

func TestMappingOutlivesDescriptor(t *testing.T) {
	a := kit.NewArena(t, 2)
	fd, err := unix.MemfdCreate("kit", 0)
	require.NoError(t, err)
	require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(2))))
	a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
	require.NoError(t, unix.Close(fd))
	a.Fill(t, 0, 2, 1)
	child := kit.Fork(t)
	require.False(t, child.Store(a.Page(1), 9).Faulted())
	assert.Equal(t, "01 09", contents(a, 0, 2))
}

// Files of huge pages can be made whether or not there are any.
func TestHugePages(t *testing.T) {
	r := create(t, "a", unix.MFD_HUGETLB)
	if r.Errno == unix.ENOSYS || r.Errno == unix.ENODEV {
		t.Skip("a kernel without hugetlbfs")
	}
	require.True(t, r.OK(), r)
	fd := int(r.Value)
	assert.Equal(t, unix.EINVAL, kit.Me.Call(unix.SYS_FTRUNCATE, uintptr(fd), kit.Len(1)).Errno, "not a multiple of huge pages")
	assert.Equal(t, unix.EINVAL, kit.Me.Write(fd, 0, 1).Errno, "no write(2)")
	require.NoError(t, unix.Ftruncate(fd, kit.HugeSize))
	a := kit.NewArena(t, kit.HugeSize/kit.PageSize)
	e := kit.Me.Mmap(a.Page(0), kit.HugeSize, kit.RW, unix.MAP_SHARED|unix.MAP_FIXED, fd, 0).Errno
	assert.Contains(t, []unix.Errno{0, unix.ENOMEM}, e, "there is one, or not")
}
