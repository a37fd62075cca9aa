package kit

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Result is what a system call returned.
type Result struct {
	Value uintptr // meaningless if Errno is not 0
	Errno unix.Errno
}

// OK reports whether the call succeeded.
func (r Result) OK() bool { return r.Errno == 0 }

// String is the value, or the name of the error.
func (r Result) String() string {
	if r.OK() {
		return fmt.Sprintf("%#x", r.Value)
	}
	return ErrnoName(r.Errno)
}

// ErrnoName is "EINVAL" for unix.EINVAL, and "ok" for 0.
func ErrnoName(e unix.Errno) string {
	if e == 0 {
		return "ok"
	}
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", int(e))
}

// Pointer is the address of something in Go's memory, to be an argument of Call. It moves what it points
// to off the stack, which may move before the call is made, as Go's heap does not. The caller keeps it alive.
func Pointer[T any](p *T) uintptr {
	escaped.Store((*byte)(unsafe.Pointer(p)))
	return uintptr(unsafe.Pointer(p))
}

// escaped is read by nobody, which the compiler cannot know.
var escaped atomic.Pointer[byte]

// Where the Go wrappers of these calls check, round or retry, a test would not see the kernel. So all
// of them are made by number. Lengths and addresses are in bytes, and as the caller gives them.

// Mmap is mmap(2).
func (a *Actor) Mmap(addr, length uintptr, prot, flags, fd int, offset int64) Result {
	return a.Call(unix.SYS_MMAP, addr, length, uintptr(prot), uintptr(flags), uintptr(fd), uintptr(offset))
}

// Munmap is munmap(2).
func (a *Actor) Munmap(addr, length uintptr) unix.Errno {
	return a.Call(unix.SYS_MUNMAP, addr, length).Errno
}

// Mremap is mremap(2).
func (a *Actor) Mremap(addr, oldLength, newLength uintptr, flags int, newAddr uintptr) Result {
	return a.Call(unix.SYS_MREMAP, addr, oldLength, newLength, uintptr(flags), newAddr)
}

// Mprotect is mprotect(2).
func (a *Actor) Mprotect(addr, length uintptr, prot int) unix.Errno {
	return a.Call(unix.SYS_MPROTECT, addr, length, uintptr(prot)).Errno
}

// Madvise is madvise(2).
func (a *Actor) Madvise(addr, length uintptr, advice int) unix.Errno {
	return a.Call(unix.SYS_MADVISE, addr, length, uintptr(advice)).Errno
}

// Mlock is mlock(2).
func (a *Actor) Mlock(addr, length uintptr) unix.Errno {
	return a.Call(unix.SYS_MLOCK, addr, length).Errno
}

// Mlock2 is mlock2(2).
func (a *Actor) Mlock2(addr, length uintptr, flags int) unix.Errno {
	return a.Call(unix.SYS_MLOCK2, addr, length, uintptr(flags)).Errno
}

// Munlock is munlock(2).
func (a *Actor) Munlock(addr, length uintptr) unix.Errno {
	return a.Call(unix.SYS_MUNLOCK, addr, length).Errno
}

// Mlockall is mlockall(2).
func (a *Actor) Mlockall(flags int) unix.Errno {
	return a.Call(unix.SYS_MLOCKALL, uintptr(flags)).Errno
}

// Munlockall is munlockall(2).
func (a *Actor) Munlockall() unix.Errno { return a.Call(unix.SYS_MUNLOCKALL).Errno }

// Msync is msync(2).
func (a *Actor) Msync(addr, length uintptr, flags int) unix.Errno {
	return a.Call(unix.SYS_MSYNC, addr, length, uintptr(flags)).Errno
}

// Mincore is mincore(2). vec gets one byte a page; for a child it has to be Shared memory.
func (a *Actor) Mincore(addr, length uintptr, vec []byte) unix.Errno {
	return a.Call(unix.SYS_MINCORE, addr, length, Pointer(unsafe.SliceData(vec))).Errno
}

// Brk is the system call, which returns the new break, or the old one if it refuses.
func (a *Actor) Brk(addr uintptr) uintptr { return a.Call(unix.SYS_BRK, addr).Value }

// Read is read(2) with any address as its buffer.
func (a *Actor) Read(fd int, addr, length uintptr) Result {
	return a.Call(unix.SYS_READ, uintptr(fd), addr, length)
}

// Write is write(2) with any address as its buffer.
func (a *Actor) Write(fd int, addr, length uintptr) Result {
	return a.Call(unix.SYS_WRITE, uintptr(fd), addr, length)
}

// Operations of futex(2), which package unix has no names for.
const (
	FutexWait    = 0
	FutexWake    = 1
	FutexRequeue = 3
	FutexPrivate = 128
)

// Futex is futex(2) without a timeout.
func (a *Actor) Futex(addr uintptr, op, value int) Result {
	return a.Call(unix.SYS_FUTEX, addr, uintptr(op), uintptr(value))
}

// SetLimit sets a limit of the actor's process. A limit of memory breaks Go's runtime, so set it in a Fork and
// not in Me.
func (a *Actor) SetLimit(resource int, soft, hard uint64) unix.Errno {
	// From outside: a child would look for the new limit in its own copy of Go's memory.
	err := unix.Prlimit(a.Pid(), resource, &unix.Rlimit{Cur: soft, Max: hard}, nil)
	if err == nil {
		return 0
	}
	return err.(unix.Errno)
}
