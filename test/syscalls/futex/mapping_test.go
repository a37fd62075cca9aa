// These tests claim that a shared futex is found through every mapping of its page, in every process, and a
// private one at its address only.
package futex

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestSharedFutexIsFoundThroughAnotherMapping(t *testing.T) {
	for _, p := range places() {
		t.Run(p.name, func(t *testing.T) {
			for _, c := range []struct {
				name            string
				waits, wakes    int // protection of each mapping
				offset          int // of the mapping that wakes, in pages
				inChild, reopen bool
			}{
				{"at another address", kit.RW, kit.RW, 0, false, false},
				{"from another offset", kit.RW, kit.RW, 1, false, false},
				{"mapped for reading by the one who waits", unix.PROT_READ, kit.RW, 0, false, false},
				{"mapped for reading by the one who wakes", kit.RW, unix.PROT_READ, 0, false, false},
				{"of another process", kit.RW, kit.RW, 0, true, false},
				{"of another descriptor", kit.RW, kit.RW, 0, false, true},
			} {
				t.Run(c.name, func(t *testing.T) {
					a := kit.NewArena(t, 8)
					fd := p.file(t)
					a.Map(t, 0, 2, c.waits, unix.MAP_SHARED, fd, 0)
					other := fd
					if c.reopen {
						other = reopened(t, fd)
					}
					var sleeper *kit.Actor
					if c.inChild {
						sleeper = kit.Fork(t)
					} else {
						sleeper = kit.NewThread(t)
					}
					a.Map(t, 4, 2-c.offset, c.wakes, unix.MAP_SHARED, other, c.offset)
					w := sleep(t, sleeper, a.Page(1)+8, shared)
					assert.Equal(t, "0", wake(kit.Me, a.Page(5-c.offset)+12, shared), "another word")
					require.Equal(t, "1", wake(kit.Me, a.Page(5-c.offset)+8, shared))
					w.woken(t)
				})
			}
		})
	}
}

func TestSharedFutexIsFoundThroughAHardLink(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 4)
		path := d.NamedFile(t, 1)
		require.NoError(t, os.Link(path, path+"-link"))
		t.Cleanup(func() { os.Remove(path + "-link") })
		a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, kit.Open(t, path, unix.O_RDWR), 0)
		a.Map(t, 2, 1, kit.RW, unix.MAP_SHARED, kit.Open(t, path+"-link", unix.O_RDWR), 0)
		w := sleep(t, kit.NewThread(t), a.Page(0), shared)
		got := wake(kit.Me, a.Page(2), shared)
		assert.Equal(t, "1", got)
		if got == "0" {
			wake(kit.Me, a.Page(0), shared)
		}
		w.woken(t)
	})
}

func TestSharedAnonymousMemory(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
	child := kit.Fork(t)
	require.True(t, child.Mremap(a.Page(0), kit.Len(2), kit.Len(2), moving, a.Page(2)).OK())
	w := sleep(t, child, a.Page(3), shared)
	require.Equal(t, "1", wake(kit.Me, a.Page(1), shared))
	w.woken(t)
	w = sleep(t, child.Fork(t), a.Page(2), shared)
	require.Equal(t, "1", wake(kit.Me, a.Page(0), shared))
	w.woken(t)
}

func TestSegmentAttachedTwice(t *testing.T) {
	a := kit.NewArena(t, 4)
	r := kit.Me.Call(unix.SYS_SHMGET, unix.IPC_PRIVATE, kit.Len(1), 0o600)
	require.True(t, r.OK(), r)
	t.Cleanup(func() { kit.Me.Call(unix.SYS_SHMCTL, r.Value, unix.IPC_RMID, 0) })
	for _, page := range []int{0, 2} {
		require.True(t, kit.Me.Call(unix.SYS_SHMAT, r.Value, a.Page(page), 0).OK())
	}
	child := kit.Fork(t)
	w := sleep(t, child, a.Page(0)+4, shared)
	require.Zero(t, kit.Me.Call(unix.SYS_SHMDT, a.Page(0)).Errno)
	require.Equal(t, "1", wake(kit.Me, a.Page(2)+4, shared))
	w.woken(t)
}

func TestDifferentMemoryIsDifferent(t *testing.T) {
	// Two mappings side by side, and the one who wakes is at the second.
	for _, c := range []struct {
		name         string
		second       func(t *testing.T, a *kit.Arena, fd int)
		waits, wakes int
	}{
		{"another page of the file", func(t *testing.T, a *kit.Arena, fd int) { a.Map(t, 1, 1, kit.RW, unix.MAP_SHARED, fd, 1) }, shared, shared},
		{"another file", func(t *testing.T, a *kit.Arena, _ int) {
			a.Map(t, 1, 1, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
		}, shared, shared},
		{"a private copy of the page", func(t *testing.T, a *kit.Arena, fd int) {
			a.Map(t, 1, 1, kit.RW, unix.MAP_PRIVATE, fd, 0)
			a.Fill(t, 1, 1, 0x41)
		}, shared, shared},
		{"the same page, both private", func(t *testing.T, a *kit.Arena, fd int) { a.Map(t, 1, 1, kit.RW, unix.MAP_SHARED, fd, 0) }, private, private},
		{"the same page, one private", func(t *testing.T, a *kit.Arena, fd int) { a.Map(t, 1, 1, kit.RW, unix.MAP_SHARED, fd, 0) }, private, shared},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			fd := kit.Memfd(t, 2, 0)
			a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, fd, 0)
			c.second(t, a, fd)
			w := sleep(t, kit.NewThread(t), a.Page(0), c.waits)
			assert.Equal(t, "0", wake(kit.Me, a.Page(1), c.wakes))
			require.Equal(t, "1", wake(kit.Me, a.Page(0), c.waits))
			w.woken(t)
		})
	}
}

func TestPrivateAndSharedAtOneAddressAreDifferent(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags int
	}{{"private memory", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS}, {"shared memory", unix.MAP_SHARED | unix.MAP_ANONYMOUS}} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Map(t, 0, 1, kit.RW, c.flags, -1, 0)
			w := sleep(t, kit.NewThread(t), a.Page(0), private)
			v := sleep(t, kit.NewThread(t), a.Page(0), shared)
			require.Equal(t, "1", wake(kit.Me, a.Page(0), shared))
			v.woken(t)
			require.Equal(t, "1", wake(kit.Me, a.Page(0), private))
			w.woken(t)
		})
	}
}

func TestSeveralWaitersInSeveralProcesses(t *testing.T) {
	a := kit.NewArena(t, 3)
	fd := kit.Memfd(t, 1, 0)
	for i := range 3 {
		a.Map(t, i, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	}
	var all []*waiter
	for i := range 3 {
		all = append(all, sleep(t, kit.Fork(t), a.Page(i), shared), sleep(t, kit.NewThread(t), a.Page(i), shared))
	}
	one := kit.Me.Futex(a.Page(2), kit.FutexWake, 1)
	assert.Equal(t, kit.Result{Value: 1}, one)
	require.Equal(t, "5", wake(kit.Me, a.Page(1), shared))
	for _, w := range all {
		w.woken(t)
	}
	assert.Equal(t, "0", wake(kit.Me, a.Page(0), shared))
}

func TestWaiterThatIsKilledIsGone(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
	child := kit.Fork(t)
	w := sleep(t, child, a.Page(0), shared)
	require.NoError(t, unix.Kill(child.Pid(), unix.SIGKILL))
	w.wait()
	child.Reap(t)
	assert.Equal(t, "0", wake(kit.Me, a.Page(0), shared))
}

// reopened is another description of the file.
func reopened(t *testing.T, fd int) int {
	t.Helper()
	return kit.Open(t, procFile(fd), unix.O_RDWR)
}
