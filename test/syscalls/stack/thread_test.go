// Claims that any memory can be a thread's stack, and that a thread which runs over the end of its stack is
// stopped there.
package stack

import (
	"runtime"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

const word = unsafe.Sizeof(uintptr(0))

// prepare gives the functions in assembly their arguments, before the child that calls them is forked. top is the end
// of the stack.
func prepare(t testing.TB, top uintptr, pages int) {
	t.Helper()
	params = (*[8]uintptr)(unsafe.Pointer(unsafe.SliceData(kit.Shared(t, kit.PageSize))))
	params[0], params[1], params[2] = top, kit.Len(pages)/word, 1
}

// defaultAction is struct sigaction of SIG_DFL, which a forked child finds where it is here.
var defaultAction [4]uint64

// unhandled lets a child die of SIGSEGV.
func unhandled(t testing.TB, child *kit.Actor) {
	t.Helper()
	r := child.Call(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), uintptr(unsafe.Pointer(&defaultAction)), 0, 8)
	require.True(t, r.OK(), "rt_sigaction: %v", r)
}

// stackPages is the size of the stacks below. They end with page stackTop.
const (
	stackPages = 16
	stackTop   = 300
)

// kinds of memory for a stack.
var kinds = map[string]func(t *testing.T, a *kit.Arena){
	"anonymous": func(t *testing.T, a *kit.Arena) { a.Anon(t, stackTop-stackPages, stackPages, rw, 0) },
	"MAP_STACK": func(t *testing.T, a *kit.Arena) { a.Anon(t, stackTop-stackPages, stackPages, rw, unix.MAP_STACK) },
	"locked":    func(t *testing.T, a *kit.Arena) { a.Anon(t, stackTop-stackPages, stackPages, rw, unix.MAP_LOCKED) },
	"shared memory": func(t *testing.T, a *kit.Arena) {
		a.Map(t, stackTop-stackPages, stackPages, rw, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
	},
	"private file": func(t *testing.T, a *kit.Arena) {
		a.Map(t, stackTop-stackPages, stackPages, rw, unix.MAP_PRIVATE, kit.File(t, stackPages), 0)
	},
	"shared file": func(t *testing.T, a *kit.Arena) {
		a.Map(t, stackTop-stackPages, stackPages, rw, unix.MAP_SHARED, kit.File(t, stackPages), 0)
	},
}

// run starts a thread in the child that pushes so many pages of words, and waits for its end.
func run(t testing.TB, child *kit.Actor) {
	t.Helper()
	require.False(t, child.Exec(startThreadPC()).Faulted())
	ended := (*atomic.Uint32)(unsafe.Pointer(&params[2]))
	for ended.Load() != 0 {
		kit.Me.Futex(uintptr(unsafe.Pointer(ended)), kit.FutexWait, 1)
	}
}

// await waits for a child to end, or fails the test if its thread ends and leaves it alive.
func await(t testing.TB, child *kit.Actor) unix.WaitStatus {
	t.Helper()
	ended := (*atomic.Uint32)(unsafe.Pointer(&params[2]))
	for ended.Load() != 0 {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, child.Pid(), &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == nil && info.Signo != 0 {
			break
		}
		runtime.Gosched()
	}
	require.False(t, child.Call(unix.SYS_GETPID).OK(), "the thread came to its end, and the process lives on")
	return child.Reap(t)
}

// pushed is whether the words are on the stack, in the pages [from, stackTop).
func pushed(child *kit.Actor, a *kit.Arena, from int) bool {
	for i := from; i < stackTop; i++ {
		if child.Load64(a.Page(i)).Value == 0 {
			return false
		}
	}
	return true
}

func TestThreadOnAnyMemory(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, stackTop+1)
			kind(t, a)
			prepare(t, a.Page(stackTop), stackPages)
			child := kit.Fork(t)
			run(t, child)
			assert.True(t, pushed(child, a, stackTop-stackPages))
		})
	}
}

// A guard below the stack, mapped without access or not mapped at all, kills who runs into it.
func TestThreadThatOverrunsItsStack(t *testing.T) {
	for name, guard := range map[string]func(t *testing.T, a *kit.Arena){
		"nothing":        func(*testing.T, *kit.Arena) {},
		"without access": func(t *testing.T, a *kit.Arena) { a.Anon(t, stackTop-stackPages-1, 1, none, 0) },
		"read-only":      func(t *testing.T, a *kit.Arena) { a.Anon(t, stackTop-stackPages-1, 1, unix.PROT_READ, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, stackTop+1)
			kinds["MAP_STACK"](t, a)
			guard(t, a)
			prepare(t, a.Page(stackTop), stackPages+1)
			child := kit.Fork(t)
			unhandled(t, child)
			child.Exec(startThreadPC())
			status := await(t, child)
			kit.Say(t, "%v", status.Signal())
			assert.Equal(t, unix.SIGSEGV, status.Signal())
		})
	}
}

// A stack of one page that grows down is as large as the thread needs.
func TestThreadOnAGrowingStack(t *testing.T) {
	a := kit.NewArena(t, stackTop+1)
	a.Anon(t, stackTop-1, 1, rw, unix.MAP_GROWSDOWN|unix.MAP_STACK)
	prepare(t, a.Page(stackTop), 40)
	child := kit.Fork(t)
	child.Exec(pushDownPC())
	kit.Say(t, "%v", a.Layout(t, child))
	assert.Equal(t, []string{"p260-p300 rw-p 0"}, a.Layout(t, child))
	assert.True(t, pushed(child, a, 260))
}

// It grows no nearer to another mapping than the guard gap.
func TestGrowingStackStopsAtTheGuardGap(t *testing.T) {
	a := kit.NewArena(t, stackTop+1)
	a.Anon(t, stackTop-1, 1, rw, unix.MAP_GROWSDOWN|unix.MAP_STACK)
	a.Anon(t, 0, 1, rw, 0)
	prepare(t, a.Page(stackTop), stackTop-1)
	child := kit.Fork(t)
	got := child.Exec(pushDownPC())
	kit.Say(t, "%s, %v", a.Describe(got), a.Layout(t, child))
	assert.Equal(t, "SIGSEGV/MAPERR", got.SignalName())
	assert.Equal(t, a.Page(1+guardPages)-got.Addr, word, "the first word below what it may grow to")
}
