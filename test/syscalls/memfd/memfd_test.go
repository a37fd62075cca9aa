// These tests are about memory files: how they are made, what their seals refuse, and what mappings of them
// do when they are sealed or truncated.
package memfd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// sealable is a memory file of so many pages, with the bytes of kit.PageByte, that has no seals yet.
func sealable(t testing.TB, pages int) int {
	t.Helper()
	return kit.Memfd(t, pages, unix.MFD_ALLOW_SEALING)
}

// seal adds seals, and returns why not.
func seal(fd, seals int) unix.Errno {
	return kit.Me.Call(unix.SYS_FCNTL, uintptr(fd), unix.F_ADD_SEALS, uintptr(seals)).Errno
}

// mustSeal adds seals.
func mustSeal(t testing.TB, fd, seals int) {
	t.Helper()
	e := seal(fd, seals)
	require.Zero(t, e, "adding seals %#x: %s", seals, kit.ErrnoName(e))
}

// seals are those that a file has, as names.
func seals(t testing.TB, fd int) string {
	t.Helper()
	set, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	require.NoError(t, err)
	var names []string
	for i, name := range []string{"SEAL", "SHRINK", "GROW", "WRITE", "FUTURE_WRITE", "EXEC"} {
		if set&(1<<i) != 0 {
			names = append(names, name)
			set &^= 1 << i
		}
	}
	require.Zero(t, set, "seals without a name")
	return strings.Join(names, " ")
}

// contents is what this process finds at the first bytes of pages [i, i+n), in one line: in hexadecimal, or the
// name of the signal without its code.
func contents(a *kit.Arena, i, n int) string {
	found := a.Bytes(kit.Me, i, n)
	for k, c := range found {
		found[k], _, _ = strings.Cut(c, "/")
	}
	return strings.Join(found, " ")
}

// mmap maps so many pages of a file at page i of the arena, and returns why not.
func mmap(a *kit.Arena, i, n, prot, flags, fd int) unix.Errno {
	return kit.Me.Mmap(a.Page(i), kit.Len(n), prot, flags|unix.MAP_FIXED, fd, 0).Errno
}

// reopened is another description of the file, with other access.
func reopened(t testing.TB, fd, flags int) int {
	t.Helper()
	return kit.Open(t, fmt.Sprintf("/proc/self/fd/%d", fd), flags)
}
