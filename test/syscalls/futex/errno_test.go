// These tests claim what waiting and waking return where the word cannot be read, is not aligned, or has another
// value.
package futex

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// words are addresses of words whose value is not 7.
var words = []struct {
	name string
	at   func(t *testing.T, a *kit.Arena) uintptr
	// What waiting for 7 and waking return, on a shared and on a private futex.
	waitShared, waitPrivate, wakeShared, wakePrivate unix.Errno
}{
	{"private memory", anonymous(kit.RW), unix.EAGAIN, unix.EAGAIN, 0, 0},
	{"shared memory", func(t *testing.T, a *kit.Arena) uintptr {
		a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
		return a.Page(0)
	}, unix.EAGAIN, unix.EAGAIN, 0, 0},
	{"shared memory, read only", func(t *testing.T, a *kit.Arena) uintptr {
		a.Map(t, 0, 1, unix.PROT_READ, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
		return a.Page(0)
	}, unix.EAGAIN, unix.EAGAIN, 0, 0},
	{"a file, read only", func(t *testing.T, a *kit.Arena) uintptr {
		a.Map(t, 0, 1, unix.PROT_READ, unix.MAP_PRIVATE, kit.File(t, 1), 0)
		return a.Page(0)
	}, unix.EAGAIN, unix.EAGAIN, 0, 0},
	{"no access", anonymous(unix.PROT_NONE), unix.EFAULT, unix.EFAULT, unix.EFAULT, 0},
	{"not mapped", func(_ *testing.T, a *kit.Arena) uintptr { return a.Page(0) }, unix.EFAULT, unix.EFAULT, unix.EFAULT, 0},
	{"of the kernel", func(*testing.T, *kit.Arena) uintptr { return 1 << 63 }, unix.EFAULT, unix.EFAULT, unix.EFAULT, unix.EFAULT},
	{"not aligned", func(t *testing.T, a *kit.Arena) uintptr { return anonymous(kit.RW)(t, a) + 2 }, unix.EINVAL, unix.EINVAL, unix.EINVAL, unix.EINVAL},
	{"not aligned, not mapped", func(_ *testing.T, a *kit.Arena) uintptr { return a.Page(0) + 1 }, unix.EINVAL, unix.EINVAL, unix.EINVAL, unix.EINVAL},
	{"beyond the end of a file", func(t *testing.T, a *kit.Arena) uintptr {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
		return a.Page(1)
	}, unix.EFAULT, unix.EFAULT, unix.EFAULT, 0},
	{"the last of a page", func(t *testing.T, a *kit.Arena) uintptr { return anonymous(kit.RW)(t, a) + kit.Len(1) - 4 }, unix.EAGAIN, unix.EAGAIN, 0, 0},
}

func anonymous(prot int) func(t *testing.T, a *kit.Arena) uintptr {
	return func(t *testing.T, a *kit.Arena) uintptr {
		a.Anon(t, 0, 1, prot, 0)
		return a.Page(0)
	}
}

func TestErrors(t *testing.T) {
	for _, w := range words {
		t.Run(w.name, func(t *testing.T) {
			for _, c := range []struct {
				name string
				op   int
				want unix.Errno
			}{
				{"wait, shared", kit.FutexWait | shared, w.waitShared},
				{"wait, private", kit.FutexWait | private, w.waitPrivate},
				{"wake, shared", kit.FutexWake | shared, w.wakeShared},
				{"wake, private", kit.FutexWake | private, w.wakePrivate},
			} {
				t.Run(c.name, func(t *testing.T) {
					a := kit.NewArena(t, 2)
					got := kit.Me.Futex(w.at(t, a), c.op, 7).Errno
					assert.Equal(t, c.want, got, kit.ErrnoName(got))
					kit.Say(t, "%s", kit.ErrnoName(got))
				})
			}
		})
	}
}

// Nobody could ever change such a word.
func TestReadOnlyAnonymousMemoryHasNoSharedFutex(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Anon(t, 0, 1, unix.PROT_READ, 0)
	assert.Equal(t, unix.EFAULT, kit.Me.Futex(a.Page(0), kit.FutexWait|shared, 7).Errno)
	assert.Equal(t, unix.EAGAIN, kit.Me.Futex(a.Page(0), kit.FutexWait|private, 7).Errno)
}

func TestUntouchedWordIsZero(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Anon(t, 0, 1, kit.RW, 0)
	r := kit.NewThread(t)
	wait := r.Start(unix.SYS_FUTEX, a.Page(0), kit.FutexWait, 0)
	r.AwaitBlocked(t)
	assert.Equal(t, "1", wake(kit.Me, a.Page(0), shared))
	assert.True(t, wait().OK())
}
