// These tests are about System V shared memory: making, attaching, detaching and removing segments, and what
// is known of them.
package shm

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// Flags and modes that package unix has no names for.
const (
	shmRemap  = 0o40000
	shmExec   = 0o100000
	shmDest   = 0o1000 // in the mode: removed when the last attach goes
	shmLocked = 0o2000
	shmLock   = 11
	shmUnlock = 12
	nobody    = 65534
)

// get is shmget(2).
func get(actor *kit.Actor, key, size uintptr, flags int) kit.Result {
	return actor.Call(unix.SYS_SHMGET, key, size, uintptr(flags))
}

// remove is shmctl(2) with IPC_RMID.
func remove(actor *kit.Actor, id uintptr) unix.Errno {
	return actor.Call(unix.SYS_SHMCTL, id, unix.IPC_RMID, 0).Errno
}

// segment is a new one of so many pages, without a key, for its owner alone. It is removed after the test.
func segment(t testing.TB, pages int) uintptr {
	t.Helper()
	return segmentOf(t, unix.IPC_PRIVATE, kit.Len(pages), 0o600)
}

// segmentOf is a new one. It is removed after the test.
func segmentOf(t testing.TB, key, size uintptr, mode int) uintptr {
	t.Helper()
	r := get(kit.Me, key, size, unix.IPC_CREAT|unix.IPC_EXCL|mode)
	require.True(t, r.OK(), "shmget: %v", r)
	t.Cleanup(func() { remove(kit.Me, r.Value) })
	return r.Value
}

// attach is shmat(2).
func attach(actor *kit.Actor, id, addr uintptr, flags int) kit.Result {
	return actor.Call(unix.SYS_SHMAT, id, addr, uintptr(flags))
}

// mustAttach attaches at a page of the arena.
func mustAttach(t testing.TB, a *kit.Arena, id uintptr, page int) {
	t.Helper()
	r := attach(kit.Me, id, a.Page(page), 0)
	require.True(t, r.OK(), "shmat: %v", r)
	require.Equal(t, a.Page(page), r.Value)
}

// detach is shmdt(2).
func detach(actor *kit.Actor, addr uintptr) unix.Errno {
	return actor.Call(unix.SYS_SHMDT, addr).Errno
}

// stat is shmctl(2) with IPC_STAT.
func stat(t testing.TB, id uintptr) unix.SysvShmDesc {
	t.Helper()
	var desc unix.SysvShmDesc
	_, err := unix.SysvShmCtl(int(id), unix.IPC_STAT, &desc)
	require.NoError(t, err)
	return desc
}

// attaches is how often a segment is attached.
func attaches(t testing.TB, id uintptr) int {
	t.Helper()
	return int(stat(t, id).Nattch)
}

// gone reports whether there is no segment with that identifier.
func gone(id uintptr) bool {
	var desc unix.SysvShmDesc
	_, err := unix.SysvShmCtl(int(id), unix.IPC_STAT, &desc)
	return err == unix.EINVAL || err == unix.EIDRM
}

// unusedKey is one that nobody uses as long as the tests run alone.
const unusedKey = 0x5e17a11e

// contents is what an actor finds at the first bytes of pages [i, i+n), in one line: in hexadecimal, or the
// name of the signal without its code.
func contents(a *kit.Arena, actor *kit.Actor, i, n int) string {
	found := a.Bytes(actor, i, n)
	for k, c := range found {
		found[k], _, _ = strings.Cut(c, "/")
	}
	return strings.Join(found, " ")
}

// layout is the arena's mappings without names.
func layout(t testing.TB, a *kit.Arena) string {
	t.Helper()
	var found []string
	for _, l := range a.Maps(t, kit.Me) {
		l.Name = ""
		found = append(found, a.Show(l))
	}
	return strings.Join(found, ", ")
}
