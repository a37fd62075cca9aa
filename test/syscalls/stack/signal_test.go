// Claims how a handler runs when the stack is used up: on the alternate stack if there is one, and otherwise not
// at all, and the process is gone.
package stack

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// Pages of the arena: the alternate stack, and the stack that is used up, with nothing below it.
const (
	altAt, altPages   = 2, 16
	usedAt, usedPages = 40, 8
)

// alternate is stack_t.
type alternate struct {
	addr  uintptr
	flags int32
	_     int32
	size  uintptr
}

const disable = 2 // SS_DISABLE

// setAlternate is sigaltstack(2) in a child; its argument is in memory that it shares.
func setAlternate(t testing.TB, child *kit.Actor, s alternate) {
	t.Helper()
	arg := (*alternate)(unsafe.Pointer(&params[4]))
	*arg = s
	r := child.Call(unix.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(arg)), 0)
	require.True(t, r.OK(), "sigaltstack: %v", r)
}

// overrunning is a child that is about to use up its stack.
func overrunning(t testing.TB) (*kit.Arena, *kit.Actor) {
	t.Helper()
	a := kit.NewArena(t, 64)
	a.Anon(t, usedAt, usedPages, rw, 0)
	a.Anon(t, altAt, altPages, rw, 0)
	prepare(t, a.Page(usedAt+usedPages), usedPages+1)
	return a, kit.Fork(t)
}

// The handler is called on the alternate stack and can end the overrun.
func TestHandlerOnTheAlternateStack(t *testing.T) {
	a, child := overrunning(t)
	setAlternate(t, child, alternate{addr: a.Page(altAt), size: kit.Len(altPages)})
	got := child.Exec(pushDownPC())
	assert.Equal(t, "SIGSEGV/MAPERR", got.SignalName())
	assert.Equal(t, word, a.Page(usedAt)-got.Addr, "the first word that had no room")
	last := child.Load64(a.Page(altAt+altPages) - word)
	frame := false
	for at := a.Page(altAt); at < a.Page(altAt+altPages); at += word {
		frame = frame || child.Load64(at).Value != 0
	}
	kit.Say(t, "%v %v", last.Faulted(), frame)
	assert.True(t, frame, "the signal's frame is on the alternate stack")
}

// It may be used again and again, and its memory is only touched then.
func TestAlternateStackIsReusable(t *testing.T) {
	a, child := overrunning(t)
	setAlternate(t, child, alternate{addr: a.Page(altAt), size: kit.Len(altPages)})
	for range 10 {
		require.Equal(t, "SIGSEGV/MAPERR", child.Exec(pushDownPC()).SignalName())
	}
	a.Anon(t, 60, 1, rw, 0)
	assert.Equal(t, []string{"SIGSEGV/MAPERR"}, a.Bytes(child, 60, 1), "and by other faults")
}

// The alternate stack may be any memory that can be written.
func TestAlternateStackOnAnyMemory(t *testing.T) {
	for name, flags := range map[string]int{"untouched": anon, "grows down": anon | unix.MAP_GROWSDOWN, "shared": unix.MAP_SHARED | unix.MAP_ANONYMOUS} {
		t.Run(name, func(t *testing.T) {
			a, child := overrunning(t)
			require.True(t, child.Mmap(a.Page(altAt), kit.Len(altPages), rw, flags|fixed, -1, 0).OK())
			setAlternate(t, child, alternate{addr: a.Page(altAt), size: kit.Len(altPages)})
			got := child.Exec(pushDownPC())
			kit.Say(t, "%s", got.SignalName())
			assert.Equal(t, "SIGSEGV/MAPERR", got.SignalName())
		})
	}
}

// Where the frame cannot be written, there is no handler.
func TestHandlerWithoutAStack(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, a *kit.Arena, child *kit.Actor){
		"no alternate stack": func(t *testing.T, _ *kit.Arena, child *kit.Actor) { setAlternate(t, child, alternate{flags: disable}) },
		"without access": func(t *testing.T, a *kit.Arena, child *kit.Actor) {
			require.Zero(t, child.Mprotect(a.Page(altAt), kit.Len(altPages), none))
		},
		"read-only": func(t *testing.T, a *kit.Arena, child *kit.Actor) {
			require.Zero(t, child.Mprotect(a.Page(altAt), kit.Len(altPages), unix.PROT_READ))
		},
		"unmapped": func(t *testing.T, a *kit.Arena, child *kit.Actor) {
			require.Zero(t, child.Munmap(a.Page(altAt), kit.Len(altPages)))
		},
		"beyond the end of a file": func(t *testing.T, a *kit.Arena, child *kit.Actor) {
			require.True(t, child.Mmap(a.Page(altAt), kit.Len(altPages), rw, unix.MAP_SHARED|fixed, emptyFile, 0).OK())
		},
	} {
		t.Run(name, func(t *testing.T) {
			emptyFile = kit.Memfd(t, 0, 0)
			a, child := overrunning(t)
			setAlternate(t, child, alternate{addr: a.Page(altAt), size: kit.Len(altPages)})
			spoil(t, a, child)
			died(t, child, child.Exec(pushDownPC()))
		})
	}
}

// emptyFile is open before the child is forked.
var emptyFile int

// onGrowingStack is a child that loads from where nothing is mapped with its stack pointer near the start of a stack
// of one page that may grow, and has no alternate stack.
func onGrowingStack(t *testing.T) (*kit.Arena, *kit.Actor) {
	t.Helper()
	a := kit.NewArena(t, stackTop+2)
	a.Anon(t, stackTop-1, 1, rw, unix.MAP_GROWSDOWN)
	prepare(t, a.Page(stackTop-1)+64, 1) // hardly any room is left for a frame
	params[3] = a.Page(stackTop + 1)
	child := kit.Fork(t)
	setAlternate(t, child, alternate{flags: disable})
	return a, child
}

// A stack that may grow does so for the handler's frame.
func TestStackGrowsForTheHandler(t *testing.T) {
	a, child := onGrowingStack(t)
	got := child.Exec(loadOnPC())
	kit.Say(t, "%s", a.Describe(got))
	assert.Equal(t, fmt.Sprintf("SIGSEGV/MAPERR at p%d", stackTop+1), a.Describe(got), "the load's fault, and not the frame's")
	lines := a.Maps(t, child)
	require.Len(t, lines, 1)
	assert.Less(t, lines[0].Start, a.Page(stackTop-1))
}

// In the guard gap it does not, and then there is no handler.
func TestStackDoesNotGrowIntoTheGuardGapForTheHandler(t *testing.T) {
	a, child := onGrowingStack(t)
	require.True(t, child.Mmap(a.Page(stackTop-3), kit.Len(1), rw, anon|fixed, -1, 0).OK())
	died(t, child, child.Exec(loadOnPC()))
}

// A handler without an alternate stack is of no use to who has used up the stack.
func TestGrowingStackIsUsedUp(t *testing.T) {
	a := kit.NewArena(t, stackTop+1)
	a.Anon(t, stackTop-1, 1, rw, unix.MAP_GROWSDOWN)
	a.Anon(t, 0, 1, rw, 0)
	prepare(t, a.Page(stackTop), stackTop)
	child := kit.Fork(t)
	setAlternate(t, child, alternate{flags: disable})
	died(t, child, child.Exec(pushDownPC()))
}

// died claims that a step has ended the child by SIGSEGV. A child that lives on is not waited for.
func died(t *testing.T, child *kit.Actor, last kit.Access) {
	t.Helper()
	require.Equal(t, unix.SIGKILL, last.Signal, "that is how kit shows a process that is gone")
	status := child.Reap(t)
	kit.Say(t, "%v", status.Signal())
	assert.Equal(t, unix.SIGSEGV, status.Signal())
}
