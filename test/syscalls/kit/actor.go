package kit

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// An Actor makes system calls and accesses memory, one step at a time: Me on the caller's thread,
// NewThread on a thread of its own, Fork in a process of its own. What it is makes no difference to the
// caller. An Actor other than Me is used by one goroutine at a time.
type Actor struct {
	// do carries out a step and returns when it is done.
	do func(step) outcome
	// pid and tid are as the caller sees them. They are 0 for Me.
	pid, tid int

	child *control // of a forked process, else nil

	// How many calls were started, and begun by the thread; see AwaitBlocked.
	started uint32
	begun   *atomic.Uint32
	// pending are calls that were started, and not waited for yet.
	pending sync.WaitGroup
}

// A step is one thing to do. It is passed to children in shared memory, so it holds no pointers.
type step struct {
	op   uintptr
	nr   uintptr // of a system call
	args [6]uintptr
}

// The operations of a step.
const (
	stepCall  = iota
	stepProbe // args: operation of probe, address, value
	stepFork  // args: address of the new child's control
	stepExit  // args: exit status
)

// An outcome is what came of a step.
type outcome struct {
	value, errno        uintptr
	signo, code, access uintptr
}

// Me acts on the thread of the caller.
var Me = &Actor{do: func(s step) outcome {
	if s.op != stepCall {
		return perform(&s)
	}
	for {
		// Not a raw call: one that blocks would keep Go's scheduler from running others.
		value, _, errno := unix.Syscall6(s.nr, s.args[0], s.args[1], s.args[2], s.args[3], s.args[4], s.args[5])
		// Go's runtime sends its threads signals when it likes; no result is about them.
		if errno != unix.EINTR {
			return outcome{value: value, errno: uintptr(errno)}
		}
	}
}}

// perform carries out a step on this thread. Forked children run it, where there is no Go runtime: it
// and what it calls grow no stack, allocate nothing and write no pointers.
//
//go:nosplit
//go:norace
func perform(s *step) (o outcome) {
	if s.op == stepProbe {
		o.value, o.signo, o.code, o.access = probe(s.args[0], s.args[1], s.args[2])
		return o
	}
	value, _, errno := syscall.RawSyscall6(s.nr, s.args[0], s.args[1], s.args[2], s.args[3], s.args[4], s.args[5])
	o.value, o.errno = value, uintptr(errno)
	return o
}

// Call makes a system call by number. Me and threads make it again where a signal interrupted it.
func (a *Actor) Call(nr uintptr, args ...uintptr) Result { return a.Start(nr, args...)() }

// Start begins a system call that may block, and returns a function that waits for its result. The actor
// can do nothing else before that; Me does it when the function is called.
func (a *Actor) Start(nr uintptr, args ...uintptr) func() Result {
	s := step{op: stepCall, nr: nr}
	if copy(s.args[:], args) < len(args) {
		panic("kit: more than six arguments")
	}
	wait := a.start(s)
	return func() Result {
		o := wait()
		return Result{Value: o.value, Errno: unix.Errno(o.errno)}
	}
}

func (a *Actor) start(s step) (wait func() outcome) {
	if a == Me {
		return func() outcome { return a.do(s) }
	}
	a.started = a.begun.Load() + 1
	done := make(chan outcome, 1)
	a.pending.Go(func() { done <- a.do(s) })
	return func() outcome { return <-done }
}

// Load reads a byte.
func (a *Actor) Load(addr uintptr) Access { return a.access(probeLoad8, addr, 0) }

// Store writes a byte.
func (a *Actor) Store(addr uintptr, value byte) Access {
	return a.access(probeStore8, addr, uint64(value))
}

// Load64 reads eight bytes in one access; addr may be unaligned.
func (a *Actor) Load64(addr uintptr) Access { return a.access(probeLoad64, addr, 0) }

// Store64 writes eight bytes in one access; addr may be unaligned.
func (a *Actor) Store64(addr uintptr, value uint64) Access {
	return a.access(probeStore64, addr, value)
}

// Exec calls the code at addr, which has to begin with ReturnCode.
func (a *Actor) Exec(addr uintptr) Access { return a.access(probeExec, addr, 0) }

func (a *Actor) access(op, addr uintptr, value uint64) Access {
	o := a.do(step{op: stepProbe, args: [6]uintptr{op, addr, uintptr(value)}})
	return Access{Value: uint64(o.value), Signal: unix.Signal(o.signo), Code: int(int32(o.code)), Addr: o.access}
}

// NewThread is an actor on a thread of its own. It ends with the test.
func NewThread(t testing.TB) *Actor {
	t.Helper()
	type request struct {
		step step
		done chan outcome
	}
	requests := make(chan request)
	tid := make(chan int)
	ended := make(chan struct{})
	begun := new(atomic.Uint32)
	go func() {
		defer close(ended)
		// Not unlocked: the thread ends with the goroutine, and what the test did to it.
		runtime.LockOSThread()
		tid <- unix.Gettid()
		for r := range requests {
			begun.Add(1)
			r.done <- Me.do(r.step)
		}
	}()
	t.Cleanup(func() { close(requests); <-ended })
	return &Actor{
		tid:   <-tid,
		pid:   os.Getpid(),
		begun: begun,
		do: func(s step) outcome {
			done := make(chan outcome)
			requests <- request{s, done}
			return <-done
		},
	}
}

// AwaitBlocked waits until the actor, which has Started something, is asleep in the kernel.
func (a *Actor) AwaitBlocked(t testing.TB) {
	t.Helper()
	for ; ; runtime.Gosched() {
		if a.begun.Load() != a.started {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", a.pid, a.tid))
		if err != nil {
			t.Fatalf("waiting for thread %d to block: %v", a.tid, err)
		}
		// The name of the program, in brackets, may hold spaces.
		_, after, _ := strings.Cut(string(stat), ") ")
		if strings.HasPrefix(after, "S") {
			return
		}
	}
}

// Proc is the folder of the actor's process in /proc.
func (a *Actor) Proc() string {
	if a.child == nil {
		return "/proc/self"
	}
	return fmt.Sprintf("/proc/%d", a.pid)
}

// Pid is the actor's process as this process sees it.
func (a *Actor) Pid() int {
	if a.child == nil {
		return os.Getpid()
	}
	return a.pid
}
