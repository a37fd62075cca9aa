package kit

import (
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A control is the memory through which a forked process gets steps and returns outcomes. It is
// shared with the process, and lies outside of every arena.
type control struct {
	// Counts of steps: asked for, begun and done. The first and the last are futexes.
	asked, begun, done atomic.Uint32
	step               step
	outcome            outcome

	owner int // the process that asks
}

// patience is how long a forked process waits for a step before it looks whether anybody is left to ask.
var patience = unix.Timespec{Sec: 5}

// serve carries out steps until it is told to exit. It runs in a forked process, where nothing of Go's
// runtime works any more: see perform.
//
//go:nosplit
//go:norace
func serve(c *control) {
	served := uint32(0)
	for {
		for c.asked.Load() == served {
			_, _, errno := syscall.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&c.asked)), FutexWait, uintptr(served), uintptr(unsafe.Pointer(&patience)), 0, 0)
			if errno != unix.ETIMEDOUT {
				continue
			}
			// Not PR_SET_PDEATHSIG: that is about the thread which forked.
			if _, _, errno := syscall.RawSyscall(unix.SYS_KILL, uintptr(c.owner), 0, 0); errno == unix.ESRCH {
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
			}
		}
		served++
		c.begun.Store(served)
		switch c.step.op {
		case stepExit:
			for {
				syscall.RawSyscall6(unix.SYS_EXIT_GROUP, c.step.args[0], 0, 0, 0, 0, 0)
			}
		case stepFork:
			next := controlAt(c.step.args[0])
			pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if pid == 0 && errno == 0 {
				c, served = next, 0
				continue
			}
			c.outcome = outcome{value: pid, errno: uintptr(errno)}
		default:
			c.outcome = perform(&c.step)
		}
		c.done.Store(served)
		syscall.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&c.done)), FutexWake, 1, 0, 0, 0)
	}
}

// ask passes a step to the process, and returns its number.
func (c *control) ask(s step) uint32 {
	c.step = s
	count := c.asked.Add(1)
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&c.asked)), FutexWake, 1, 0, 0, 0)
	return count
}

// do passes a step to the process and waits for its outcome. A process that dies of it has a fault of
// no address and the signal that killed it.
func (c *control) do(pid int, s step) outcome {
	count := c.ask(s)
	// The time-out is for a process that ends without an answer, by a step that killed it.
	timeout := unix.NsecToTimespec(50e6)
	for c.done.Load() != count {
		unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&c.done)), FutexWait, uintptr(count-1), uintptr(unsafe.Pointer(&timeout)), 0, 0)
		if c.done.Load() != count && ended(pid) {
			return outcome{errno: uintptr(unix.ESRCH), signo: uintptr(unix.SIGKILL)}
		}
	}
	return c.outcome
}

// ended reports whether a process is a zombie or gone; it leaves a zombie as it is.
func ended(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err == unix.ECHILD { // somebody else's child, or none
		return unix.Kill(pid, 0) != nil
	}
	return err == nil && info.Signo != 0
}

// Fork makes a process by fork(2) from the caller's thread: a copy of this one with that thread only.
// It runs no Go. It ends with the test at the latest.
func Fork(t testing.TB) *Actor {
	t.Helper()
	c := newControl(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, errno := fork(c)
	if errno != 0 {
		t.Fatalf("fork: %v", errno)
	}
	return newChild(t, c, pid)
}

// Fork makes a process by fork(2) from the actor, its thread and its memory.
func (a *Actor) Fork(t testing.TB) *Actor {
	t.Helper()
	if a == Me {
		return Fork(t)
	}
	if a.child == nil {
		t.Fatal("kit: fork from a thread other than the caller's is not supported")
	}
	c := newControlIn(t, a)
	o := a.do(step{op: stepFork, args: [6]uintptr{uintptr(unsafe.Pointer(c))}})
	if o.errno != 0 {
		t.Fatalf("fork in a child: %v", unix.Errno(o.errno))
	}
	return newChild(t, c, int(o.value))
}

func newChild(t testing.TB, c *control, pid int) *Actor {
	a := &Actor{pid: pid, tid: pid, child: c, begun: &c.begun}
	a.do = func(s step) outcome { return c.do(pid, s) }
	t.Cleanup(func() {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
		// They use memory that is unmapped next.
		a.pending.Wait()
	})
	return a
}

// fork is nosplit, since parent and child return from the call on copies of one stack, and the
// child must not meet Go's scheduler.
func fork(c *control) (int, unix.Errno) {
	// A signal that Go handles would find no runtime in the child. Faults of probes stay open.
	const open = 1<<(unix.SIGSEGV-1) | 1<<(unix.SIGBUS-1)
	mask, old := ^uint64(open), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid, errno := forkAndServe(c)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	return pid, errno
}

//go:nosplit
//go:norace
//go:noinline
func forkAndServe(c *control) (int, unix.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		serve(c)
	}
	return int(pid), errno
}

// Exit ends a forked process and returns its wait status.
func (a *Actor) Exit(t testing.TB, status int) unix.WaitStatus {
	t.Helper()
	a.child.ask(step{op: stepExit, args: [6]uintptr{uintptr(status)}})
	return a.Reap(t)
}

// Reap waits for a forked process to end, and returns its wait status. Only a child of this process can be
// waited for, not a grandchild.
func (a *Actor) Reap(t testing.TB) unix.WaitStatus {
	t.Helper()
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(a.pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatalf("wait4(%d): %v", a.pid, err)
		}
		return status
	}
}

func newControl(t testing.TB) *control {
	c := (*control)(unsafe.Pointer(unsafe.SliceData(Shared(t, PageSize))))
	c.owner = os.Getpid()
	return c
}

// newControlIn is memory that this process, the actor and its future child share. The actor was forked
// before it came to be, so it is taken from what they share already.
func newControlIn(t testing.TB, a *Actor) *control {
	t.Helper()
	const spacing = 256
	if unsafe.Sizeof(control{}) > spacing {
		panic("kit: control does not fit")
	}
	base := uintptr(unsafe.Pointer(a.child)) // of the newest generation: each has at most one child at a time
	page := base &^ uintptr(PageSize-1)
	next := base + spacing
	if next+spacing > page+uintptr(PageSize) {
		t.Fatal("kit: too many generations of children")
	}
	c := controlAt(next)
	c.asked.Store(0)
	c.begun.Store(0)
	c.done.Store(0)
	c.owner = os.Getpid()
	return c
}

// controlAt converts an address of shared memory, of which the collector knows nothing.
//
//go:nosplit
func controlAt(addr uintptr) *control { return *(**control)(unsafe.Pointer(&addr)) }

// Shared is memory that this process shares with those it forks from now on. It is unmapped after the test.
func Shared(t testing.TB, length int) []byte {
	t.Helper()
	memory, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatalf("mmap of shared memory: %v", err)
	}
	t.Cleanup(func() { unix.Munmap(memory) })
	return memory
}
