// Claims that nobody sees a failing call while it is being made: not for a moment is the old mapping away, or another
// one there.
package keep

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// watch loads from and stores to the old mapping, on a thread of its own, until it is told to stop. It returns what
// it saw that should not be.
func watch(a *kit.Arena, writable bool, rounds *atomic.Int64, stop *atomic.Bool) string {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for ; !stop.Load(); rounds.Add(1) {
		for k := range oldPages {
			at, want := a.Page(oldAt+k), uint64(0xa0+k)
			if got := kit.Me.Load(at); got.Faulted() || got.Value != want {
				return "load: " + a.Describe(got)
			}
			if !writable {
				continue
			}
			if got := kit.Me.Store(at, byte(want)); got.Faulted() {
				return "store: " + a.Describe(got)
			}
		}
		if !rangeIsMapped(a) {
			return "a part is not mapped"
		}
	}
	return ""
}

// rangeIsMapped asks the kernel.
func rangeIsMapped(a *kit.Arena) bool {
	return kit.Me.Msync(a.Page(oldAt), kit.Len(oldPages), unix.MS_ASYNC) == 0
}

func TestFailureIsNeverSeen(t *testing.T) {
	f := openFiles(t)
	disk := func(f *files) int { return f.disk }
	for _, c := range []struct {
		scene
		writable bool
	}{
		{mapped("anonymous", rw, anon, 0, oldPages, nil), true},
		{mapped("shared memory", rw, shared, 0, oldPages, nil), true},
		{mapped("private file", rw, unix.MAP_PRIVATE, 1, oldPages, disk), true},
		{mapped("shared file", rw, unix.MAP_SHARED, 1, oldPages, disk), true},
		{mapped("to read only", rw, anon, 0, oldPages, nil).with("", func(t testing.TB, v *victim) {
			protect(t, v, oldAt, oldPages, ro)
		}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &victim{Actor: kit.Me, arena: kit.NewArena(t, 16), files: f}
			c.set(t, v)
			var rounds atomic.Int64
			var stop atomic.Bool
			var watchers sync.WaitGroup
			saw := make(chan string, 2)
			for range cap(saw) {
				watchers.Go(func() { saw <- watch(v.arena, c.writable, &rounds, &stop) })
			}
			for round := int64(0); round < 100 || rounds.Load() < 100 && len(saw) == 0; round++ {
				for _, x := range extents {
					failAll(t, v, x.i, x.n)
				}
			}
			stop.Store(true)
			watchers.Wait()
			close(saw)
			for text := range saw {
				assert.Empty(t, text)
			}
		})
	}
}

// failAll makes calls that fail for every process, at different stages.
func failAll(t *testing.T, v *victim, i, n int) {
	t.Helper()
	f := v.files
	for _, e := range []unix.Errno{
		v.mmap(i, n, rw, unix.MAP_SHARED, f.sealed, 0),
		v.mmap(i, n, rw, unix.MAP_SHARED, f.readOnly, 0),
		v.mmap(i, n, ro|unix.PROT_EXEC, unix.MAP_PRIVATE, f.noexec, 0),
		v.mmap(i, n, ro, unix.MAP_SHARED, f.directory, 0),
		v.mmap(i, n, rw, shared|unix.MAP_GROWSDOWN, -1, 0),
		v.mmap(i, n, rw, anon|unix.MAP_FIXED_NOREPLACE, -1, 0),
		v.Mmap(v.arena.Page(i), kit.Len(n), ro, unix.MAP_SHARED|fixed, f.disk, 1).Errno,
		v.Call(unix.SYS_SHMAT, 1<<30, v.arena.Page(i), shmRemap).Errno,
	} {
		require.NotZero(t, e)
	}
}
