// What mmap(2) promises. This file holds what the other files of the suite share.
package mmap

import (
	"fmt"
	"os"
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

	none = unix.PROT_NONE
	ro   = unix.PROT_READ
	rw   = kit.RW
	rx   = unix.PROT_READ | unix.PROT_EXEC
)

// unmapped removes what the kernel chose a place for, after the test.
func unmapped(t testing.TB, r kit.Result, length uintptr) {
	t.Helper()
	require.True(t, r.OK(), "mmap: %v", r)
	t.Cleanup(func() { require.Zero(t, kit.Me.Munmap(r.Value, length)) })
}

// overlaps reports whether a range has an address in common with the arena.
func overlaps(a *kit.Arena, addr, length uintptr) bool { return addr < a.End() && addr+length > a.Base }

// limit sets a limit of another process, soft and hard.
func limit(t testing.TB, child *kit.Actor, resource int, value uint64) {
	t.Helper()
	require.NoError(t, unix.Prlimit(child.Pid(), resource, &unix.Rlimit{Cur: value, Max: value}, nil))
}

// Arguments of capset(2) that leave no capability. They are variables of the package, so that a forked child
// finds them where they are here.
var (
	capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	noCaps    [2]unix.CapUserData
)

// unprivileged forks a child without capabilities.
func unprivileged(t testing.TB) *kit.Actor {
	t.Helper()
	child := kit.Fork(t)
	r := child.Call(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&noCaps)))
	require.True(t, r.OK(), "capset: %v", r)
	return child
}

// fileByte is what a file holds at an offset, as pread(2) sees it, or "end".
func fileByte(t testing.TB, fd int, offset int64) string {
	t.Helper()
	var b [1]byte
	n, err := unix.Pread(fd, b[:], offset)
	require.NoError(t, err)
	if n == 0 {
		return "end"
	}
	return fmt.Sprintf("%02x", b[0])
}

// write puts a byte into a file.
func write(t testing.TB, fd int, offset int64, value byte) {
	t.Helper()
	n, err := unix.Pwrite(fd, []byte{value}, offset)
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// size is a file's length in bytes.
func size(t testing.TB, fd int) int64 {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &st))
	return st.Size
}

// codeFile is a file of one page that holds a function which returns at once.
func codeFile(t testing.TB, d kit.Dir) int {
	t.Helper()
	fd := d.File(t, 1)
	_, err := unix.Pwrite(fd, kit.ReturnCode, 0)
	require.NoError(t, err)
	return fd
}

// mounted is a new tmpfs with such flags, without the test's process seeing it elsewhere.
func mounted(t testing.TB, flags uintptr) kit.Dir {
	t.Helper()
	path := t.TempDir()
	require.NoError(t, unix.Mount("kit", path, "tmpfs", flags, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(path, unix.MNT_DETACH)) })
	require.NoError(t, os.Chmod(path, 0o755))
	return kit.Dir{Name: "mounted", Path: path}
}

// virtualPages is the size of a process's address space, by statm.
func virtualPages(t testing.TB, actor *kit.Actor) int {
	t.Helper()
	data, err := os.ReadFile(actor.Proc() + "/statm")
	require.NoError(t, err)
	var pages int
	_, err = fmt.Sscan(string(data), &pages)
	require.NoError(t, err)
	return pages
}
