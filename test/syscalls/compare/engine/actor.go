package main

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
)

const pageSize = program.PageSize

// An actor is a worker as the engine sees it.
type actor struct {
	*control
	name    program.Actor
	process *process
	tid     int
	parked  bool // in a futex, until somebody wakes it
}

// A diedError is of a request that ended the worker.
type diedError struct{ status unix.WaitStatus }

func (e diedError) Error() string {
	if e.status.Signaled() {
		return "died of " + unix.SignalName(e.status.Signal())
	}
	return fmt.Sprintf("died with status %d", e.status.ExitStatus())
}

// ask passes what is in the control to the worker.
func (a *actor) ask() {
	a.asked.Add(1)
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&a.asked)), futexWake, 1, 0, 0, 0)
}

// wait waits for the answer.
func (a *actor) wait() (answer, error) {
	// The time-out is for a worker that ends without one.
	timeout := unix.NsecToTimespec(20e6)
	count := a.asked.Load()
	for a.done.Load() != count {
		unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&a.done)), futexWait, uintptr(count-1), uintptr(unsafe.Pointer(&timeout)), 0, 0)
		if a.done.Load() != count {
			if err := a.process.ended(); err != nil {
				return answer{}, err
			}
		}
	}
	return a.answer, nil
}

// request sets the control; nothing is asked yet.
func (a *actor) request(op, nr uintptr, args ...uintptr) {
	a.op, a.nr, a.pages, a.args = op, nr, 0, [6]uintptr{}
	copy(a.args[:], args)
}

func (a *actor) do(op, nr uintptr, args ...uintptr) (answer, error) {
	a.request(op, nr, args...)
	a.ask()
	return a.wait()
}

// call makes a system call.
func (a *actor) call(nr uintptr, args ...uintptr) (uintptr, error) {
	got, err := a.do(opCall, nr, args...)
	if err == nil && got.errno != 0 {
		err = unix.Errno(got.errno)
	}
	return got.value, err
}

// put copies data to the actor's scratch memory at an offset, and returns its address.
func (a *actor) put(offset int, data []byte) uintptr {
	copy(a.scratch[offset:], data)
	return uintptr(unsafe.Pointer(&a.scratch[offset]))
}

// putWords is put for 64-bit words.
func (a *actor) putWords(offset int, words ...uintptr) uintptr {
	for i, w := range words {
		*(*uintptr)(unsafe.Pointer(&a.scratch[offset+8*i])) = w
	}
	return uintptr(unsafe.Pointer(&a.scratch[offset]))
}

func (a *actor) word(offset int) uintptr { return *(*uintptr)(unsafe.Pointer(&a.scratch[offset])) }

// asleep reports whether the actor is blocked in the call that it was asked for, rather than before or
// after it.
func (a *actor) asleep() (bool, error) {
	if a.begun.Load() != a.asked.Load() {
		return false, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", a.process.pid, a.tid))
	if err != nil {
		return false, err
	}
	// The name of the program, in brackets, may hold spaces.
	_, after, _ := strings.Cut(string(stat), ") ")
	// If it sleeps because it is done, it said so before.
	return strings.HasPrefix(after, "S") && a.done.Load() != a.asked.Load(), nil
}
