// These tests are about what identifies a futex to those who wait and those who wake: the page of a file for
// shared ones, through whatever mapping of whatever process; the address for private ones.
package futex

import (
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	shared  = 0
	private = kit.FutexPrivate
	moving  = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED

	cmpRequeue = 4 // FUTEX_CMP_REQUEUE
)

// A waiter is an actor that sleeps on a futex.
type waiter struct {
	actor *kit.Actor
	wait  func() kit.Result
}

// sleep makes an actor wait on the word at addr, whose value must not change meanwhile.
func sleep(t testing.TB, actor *kit.Actor, addr uintptr, kind int) *waiter {
	t.Helper()
	// A collection stops threads for a moment, which looks like sleep.
	old := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(old) })
	value := actor.Load64(addr)
	require.False(t, value.Faulted(), "%v", value)
	w := &waiter{actor, actor.Start(unix.SYS_FUTEX, addr, uintptr(kit.FutexWait|kind), uintptr(uint32(value.Value)))}
	actor.AwaitBlocked(t)
	return w
}

// woken asserts that the waiter has been woken.
func (w *waiter) woken(t testing.TB) {
	t.Helper()
	r := w.wait()
	require.True(t, r.OK(), "FUTEX_WAIT: %v", r)
}

// wake wakes all waiters at addr and returns how many there were, or the error.
func wake(actor *kit.Actor, addr uintptr, kind int) string {
	r := actor.Futex(addr, kit.FutexWake|kind, 1<<30)
	if !r.OK() {
		return kit.ErrnoName(r.Errno)
	}
	return strings.TrimPrefix(r.String(), "0x")
}

// A place is memory that can be mapped more than once.
type place struct {
	name string
	file func(t *testing.T) int
}

// places are files of two pages.
func places() []place {
	all := []place{{"memfd", func(t *testing.T) int { return kit.Memfd(t, 2, 0) }}}
	for _, d := range kit.Dirs() {
		all = append(all, place{d.Name, func(t *testing.T) int { return d.File(t, 2) }})
	}
	return all
}
