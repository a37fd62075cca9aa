package traps

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// After a fork the child has the memory of that moment, and keeps it: a thread of the parent that writes
// all the while writes to pages of its own from then on, and loses none of its writes.
func TestForkCopyOnWriteNoStaleWrite(t *testing.T) {
	const words = 16 // one to a page
	area := low(words)
	anon(t, area, 0)
	word := func(i int) *uint64 { return (*uint64)(unsafe.Pointer(&area[i*pageSize])) }

	var stop atomic.Bool
	var writing sync.WaitGroup
	var written uint64
	writing.Go(func() {
		for !stop.Load() {
			written++
			for i := range words {
				atomic.AddUint64(word(i), 1)
			}
			runtime.Gosched()
		}
	})
	for range 40 {
		status, err := forkAndWatch(word(0), words, uintptr(pageSize))
		if err != nil || status != 0 {
			stop.Store(true)
			writing.Wait()
			require.NoError(t, err)
			require.Zero(t, status, "the child saw memory change that it did not write to")
		}
	}
	stop.Store(true)
	writing.Wait()
	for i := range words {
		require.Equal(t, written, atomic.LoadUint64(word(i)), "writes in page %d", i)
	}
}

// forkAndWatch forks. The child reads words, one each step bytes, over and over and exits 1 if one
// changed, otherwise 0.
func forkAndWatch(first *uint64, words int, step uintptr) (status int, err error) {
	// No other fork of this process, and no move to another thread, in between.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, errno := forkWatcher(first, words, step)
	if errno != 0 {
		return 0, errno
	}
	var wait unix.WaitStatus
	for {
		if _, err := unix.Wait4(int(pid), &wait, 0, nil); err != unix.EINTR {
			return int(wait), err
		}
	}
}

// forkWatcher is the part that runs in the child too. There it has one thread and no runtime: it neither
// allocates nor grows its stack nor calls anything but the kernel.
//
//go:norace
//go:nosplit
func forkWatcher(first *uint64, words int, step uintptr) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	var sum uint64
	for round := range 200 {
		var now uint64
		for i := range words {
			now += *(*uint64)(unsafe.Add(unsafe.Pointer(first), uintptr(i)*step))
		}
		if round == 0 {
			sum = now
		}
		if now != sum {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 1, 0, 0)
		}
		syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
