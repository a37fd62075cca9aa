// These tests claim what becomes of a futex that somebody waits on when its mapping is replaced, unmapped,
// moved, copied or forked.
package futex

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func procFile(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// A page of a file is mapped at pages 0 and 2. A thread waits at page 0, then page 0 changes.
func TestChangeUnderAWaiter(t *testing.T) {
	replace := func(t *testing.T, a *kit.Arena) { a.Anon(t, 0, 1, kit.RW, 0) }
	unmap := func(t *testing.T, a *kit.Arena) { require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(1))) }
	move := func(t *testing.T, a *kit.Arena) {
		require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(1), kit.Len(1), moving, a.Page(4)).OK())
	}
	protect := func(t *testing.T, a *kit.Arena) {
		require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(1), unix.PROT_NONE))
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, a *kit.Arena)
		kind   int
		misses map[int]string // pages where waking does not reach the waiter
		hits   int            // page where it does
	}{
		{"replaced, shared", replace, shared, map[int]string{0: "0"}, 2},
		{"replaced, private", replace, private, map[int]string{2: "0"}, 0},
		{"unmapped, shared", unmap, shared, map[int]string{0: "EFAULT"}, 2},
		{"unmapped, private", unmap, private, map[int]string{2: "0"}, 0},
		{"moved, shared, at its new address", move, shared, map[int]string{0: "EFAULT"}, 4},
		{"moved, shared, elsewhere", move, shared, nil, 2},
		{"moved, private", move, private, map[int]string{4: "0", 2: "0"}, 0},
		{"protected, shared", protect, shared, map[int]string{0: "EFAULT"}, 2},
		{"protected, private", protect, private, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 6)
			fd := kit.Memfd(t, 1, 0)
			a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, fd, 0)
			a.Map(t, 2, 1, kit.RW, unix.MAP_SHARED, fd, 0)
			w := sleep(t, kit.NewThread(t), a.Page(0), c.kind)
			c.change(t, a)
			for page, want := range c.misses {
				assert.Equal(t, want, wake(kit.Me, a.Page(page), c.kind), "page %d", page)
			}
			require.Equal(t, "1", wake(kit.Me, a.Page(c.hits), c.kind))
			w.woken(t)
		})
	}
}

// The file comes back to its address: its futex is there again.
func TestReplacedAndMappedAgain(t *testing.T) {
	a := kit.NewArena(t, 1)
	fd := kit.Memfd(t, 1, 0)
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	w := sleep(t, kit.NewThread(t), a.Page(0), shared)
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
	assert.Equal(t, "0", wake(kit.Me, a.Page(0), shared))
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	require.Equal(t, "1", wake(kit.Me, a.Page(0), shared))
	w.woken(t)
}

func TestNobodyHasTheFileButTheWaiter(t *testing.T) {
	a := kit.NewArena(t, 2)
	fd, err := unix.MemfdCreate("kit", 0)
	require.NoError(t, err)
	require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(1))))
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	child := kit.Fork(t)
	w := sleep(t, child, a.Page(0), shared)
	a.Map(t, 1, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	require.NoError(t, unix.Close(fd))
	require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(1)))
	require.Equal(t, "1", wake(kit.Me, a.Page(1), shared))
	w.woken(t)
}

// Private memory: who waits in the child waits for the child's word.
func TestForkedWordIsAnother(t *testing.T) {
	for _, c := range []struct {
		name string
		kind int
	}{{"shared", shared}, {"private", private}} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Anon(t, 0, 1, kit.RW, 0)
			a.Fill(t, 0, 1, 1)
			w := sleep(t, kit.NewThread(t), a.Page(0), c.kind)
			child := kit.Fork(t)
			assert.Equal(t, "0", wake(child, a.Page(0), c.kind))
			require.False(t, child.Store(a.Page(0), 2).Faulted())
			require.Equal(t, "1", wake(kit.Me, a.Page(0), c.kind))
			w.woken(t)
		})
	}
}

func TestCopyOnWriteKeepsTheFutex(t *testing.T) {
	for _, c := range []struct {
		name string
		kind int
	}{{"shared", shared}, {"private", private}} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Anon(t, 0, 1, kit.RW, 0)
			a.Fill(t, 0, 1, 1)
			kit.Fork(t)
			w := sleep(t, kit.NewThread(t), a.Page(0), c.kind)
			require.False(t, kit.Me.Store(a.Page(0)+100, 9).Faulted(), "the page is copied")
			require.Equal(t, "1", wake(kit.Me, a.Page(0), c.kind))
			w.woken(t)
		})
	}
}

func TestDontNeedKeepsTheFutex(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags int
		kind  int
	}{
		{"private memory", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, private},
		{"private memory, shared futex", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, shared},
		{"shared memory", unix.MAP_SHARED | unix.MAP_ANONYMOUS, shared},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Map(t, 0, 1, kit.RW, c.flags, -1, 0)
			a.Fill(t, 0, 1, 1)
			w := sleep(t, kit.NewThread(t), a.Page(0), c.kind)
			require.Zero(t, kit.Me.Madvise(a.Page(0), kit.Len(1), unix.MADV_DONTNEED))
			require.Equal(t, "1", wake(kit.Me, a.Page(0), c.kind))
			w.woken(t)
		})
	}
}

func TestRequeue(t *testing.T) {
	for _, c := range []struct {
		name string
		kind int
		op   int
	}{{"shared", shared, kit.FutexRequeue}, {"shared, compared", shared, cmpRequeue}, {"private", private, kit.FutexRequeue}, {"private, compared", private, cmpRequeue}} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 6)
			first, second := kit.Memfd(t, 1, 0), kit.Memfd(t, 1, 0)
			a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, first, 0)
			a.Map(t, 2, 1, kit.RW, unix.MAP_SHARED, second, 0)
			a.Map(t, 4, 1, kit.RW, unix.MAP_SHARED, second, 0)
			var all []*waiter
			for range 3 {
				all = append(all, sleep(t, kit.NewThread(t), a.Page(0), c.kind))
			}
			value := uintptr(0x41414141)
			if c.op == cmpRequeue {
				r := kit.Me.Call(unix.SYS_FUTEX, a.Page(0), uintptr(c.op|c.kind), 1, 2, a.Page(2), value+1)
				assert.Equal(t, unix.EAGAIN, r.Errno)
			}
			// One is woken, two are moved.
			r := kit.Me.Call(unix.SYS_FUTEX, a.Page(0), uintptr(c.op|c.kind), 1, 2, a.Page(2), value)
			assert.True(t, r.OK(), r)
			assert.Equal(t, "0", wake(kit.Me, a.Page(0), c.kind))
			through := 2
			if c.kind == shared {
				through = 4
			}
			require.Equal(t, "2", wake(kit.Me, a.Page(through), c.kind))
			for _, w := range all {
				w.woken(t)
			}
		})
	}
}

func TestRequeueCountsWokenAndMoved(t *testing.T) {
	for _, c := range []struct {
		name string
		op   int
	}{{"requeue", kit.FutexRequeue}, {"compared", cmpRequeue}} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Anon(t, 0, 1, kit.RW, 0)
			a.Fill(t, 0, 1, 1)
			first := sleep(t, kit.NewThread(t), a.Page(0), private)
			second := sleep(t, kit.NewThread(t), a.Page(0), private)
			r := kit.Me.Call(unix.SYS_FUTEX, a.Page(0), uintptr(c.op|private), 1, 2, a.Page(0)+8, 1)
			assert.Equal(t, kit.Result{Value: 2}, r)
			kit.Say(t, "%v", r)
			require.Equal(t, "1", wake(kit.Me, a.Page(0)+8, private))
			first.woken(t)
			second.woken(t)
		})
	}
}

// A word that was replaced between: its waiters follow the file and not the address.
func TestRequeueFromAnotherMappingAfterReplacement(t *testing.T) {
	a := kit.NewArena(t, 6)
	fd := kit.Memfd(t, 1, 0)
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	a.Map(t, 2, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	w := sleep(t, kit.NewThread(t), a.Page(0), shared)
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
	r := kit.Me.Call(unix.SYS_FUTEX, a.Page(2), kit.FutexRequeue, 0, 1, a.Page(0))
	assert.True(t, r.OK(), r)
	require.Equal(t, "1", wake(kit.Me, a.Page(0), shared))
	w.woken(t)
}
