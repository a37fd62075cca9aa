// This file holds the files and the segment that old and new mappings are of. They are opened before the victim is
// forked, so that it has them.
package keep

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

const filePages = 8

type files struct {
	disk, tmpfs int // open for reading and writing
	memfd, zero int
	readOnly    int // open for reading, the first of them
	writeOnly   int
	path        int // O_PATH
	sealed      int // a memfd sealed against writing
	noexec      int
	directory   int
	pipe        int
	event       int
	null        int
	status      int // /proc/self/status
	cpuinfo     int // /proc/cpuinfo
	sysfs       int
	socket      int

	segment   int // that old mappings are of
	other     int // one larger than what it replaces
	forbidden int // one without permissions
	small     int // one of two pages
}

func openFiles(t testing.TB) *files {
	t.Helper()
	disk, tmpfs := kit.Dirs()[0], kit.Dirs()[1]
	name := disk.NamedFile(t, filePages)
	f := &files{
		disk: kit.Open(t, name, unix.O_RDWR), readOnly: kit.Open(t, name, unix.O_RDONLY),
		writeOnly: kit.Open(t, name, unix.O_WRONLY), path: kit.Open(t, name, unix.O_PATH),
		tmpfs: tmpfs.File(t, filePages), sealed: kit.Memfd(t, filePages, unix.MFD_ALLOW_SEALING),
		directory: kit.Open(t, disk.Path, unix.O_RDONLY), null: kit.Open(t, "/dev/null", unix.O_RDWR),
		status: kit.Open(t, "/proc/self/status", unix.O_RDONLY),
		memfd:  kit.Memfd(t, filePages, 0), zero: kit.Open(t, "/dev/zero", unix.O_RDWR),
		cpuinfo: kit.Open(t, "/proc/cpuinfo", unix.O_RDONLY),
		sysfs:   kit.Open(t, "/sys/devices/system/cpu/possible", unix.O_RDONLY),
		segment: segment(t, oldPages, 0o600), other: segment(t, 8, 0o600), forbidden: segment(t, 2, 0),
		small: segment(t, 2, 0o600),
	}
	f.pipe, _ = kit.Pipe(t)
	_, err := unix.FcntlInt(uintptr(f.sealed), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	require.NoError(t, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	f.socket = pair[0]
	t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
	f.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(f.event) })

	mount := t.TempDir()
	require.NoError(t, unix.Mount("kit", mount, "tmpfs", unix.MS_NOEXEC, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mount, unix.MNT_DETACH)) })
	require.NoError(t, os.WriteFile(mount+"/file", make([]byte, kit.Len(filePages)), 0o600))
	f.noexec = kit.Open(t, mount+"/file", unix.O_RDWR)
	return f
}

func segment(t testing.TB, pages, mode int) int {
	t.Helper()
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, int(kit.Len(pages)), unix.IPC_CREAT|mode)
	require.NoError(t, err)
	t.Cleanup(func() { unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	return id
}

// reset gives the files back the contents that they had at first.
func (f *files) reset(t testing.TB) {
	t.Helper()
	for _, fd := range []int{f.disk, f.tmpfs, f.memfd} {
		for i := range filePages {
			_, err := unix.Pwrite(fd, bytes.Repeat([]byte{kit.PageByte(i)}, kit.PageSize), int64(kit.Len(i)))
			require.NoError(t, err)
		}
	}
}

func (f *files) contents(t testing.TB) string {
	t.Helper()
	var text string
	for _, fd := range []int{f.disk, f.tmpfs, f.memfd} {
		for i := range filePages {
			var b [1]byte
			_, err := unix.Pread(fd, b[:], int64(kit.Len(i)))
			require.NoError(t, err)
			text += fmt.Sprintf("%02x ", b[0])
		}
	}
	return text
}

// attached is how often the segment of old mappings is attached.
func (f *files) attached(t testing.TB) int {
	t.Helper()
	var desc unix.SysvShmDesc
	_, err := unix.SysvShmCtl(f.segment, unix.IPC_STAT, &desc)
	require.NoError(t, err)
	return int(desc.Nattch)
}
