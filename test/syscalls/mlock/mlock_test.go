// These tests are about locking memory: which mappings are locked after a call, what is populated, what
// is counted against the limit, and what becomes of locks when mappings change.
package mlock

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// locks is the arena's mappings with the kind of lock that each has: locked, onfault, or none.
func locks(t testing.TB, a *kit.Arena, actor *kit.Actor) []string {
	t.Helper()
	entries := a.Smaps(t, actor)
	var found []string
	for _, l := range a.Maps(t, actor) {
		entry, known := entries[int(l.Start-a.Base)/kit.PageSize]
		require.True(t, known, "smaps and maps differ")
		kind := "none"
		flags := strings.Fields(entry["VmFlags"])
		if slices.Contains(flags, "lo") {
			kind = "locked"
		}
		if slices.Contains(flags, "lf") {
			kind = "onfault"
		}
		found = append(found, fmt.Sprintf("%s-%s %s", a.Where(l.Start), a.Where(l.End), kind))
	}
	return found
}

// sayLocks adds what locks finds to the transcript.
func sayLocks(t testing.TB, a *kit.Arena, actor *kit.Actor) {
	t.Helper()
	kit.Say(t, "%s", strings.Join(locks(t, a, actor), ", "))
}

// unprivileged is a forked process without CAP_IPC_LOCK and with this limit on locked memory, in bytes.
func unprivileged(t testing.TB, limit uint64) *kit.Actor {
	t.Helper()
	child := kit.Fork(t)
	setLimit(t, child, limit)
	dropPrivileges(t, child)
	return child
}

func dropPrivileges(t testing.TB, child *kit.Actor) {
	t.Helper()
	const nobody = 65534
	r := child.Call(unix.SYS_SETRESUID, nobody, nobody, nobody)
	require.True(t, r.OK(), "setresuid: %v", r)
}

// endings is contents as Arena.Bytes has them, with signals by their name only: how their code tells the
// reason is a subject of its own.
func endings(contents []string) []string {
	for i, c := range contents {
		contents[i], _, _ = strings.Cut(c, "/")
	}
	return contents
}

// setLimit sets the soft limit on locked memory of a process from outside. To raise the hard one would take
// CAP_SYS_RESOURCE.
func setLimit(t testing.TB, child *kit.Actor, limit uint64) {
	t.Helper()
	var now unix.Rlimit
	require.NoError(t, unix.Prlimit(child.Pid(), unix.RLIMIT_MEMLOCK, nil, &now))
	now.Cur = limit
	require.NoError(t, unix.Prlimit(child.Pid(), unix.RLIMIT_MEMLOCK, &now, nil))
}

// bytes is the length of so many pages as a limit.
func bytes(pages int) uint64 { return uint64(kit.Len(pages)) }
