package main

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Everything that a program does is done by workers: processes and threads of which this process is not
// one. They hold nothing of Go's runtime, so a program can do with their memory what it wants.
//
// A worker gets requests through a control and answers there. The functions below run in workers: they
// grow no stack, allocate nothing and write no pointers.

// A control is memory shared by this process and one worker.
type control struct {
	// Counts of requests: asked for, begun and done. The first and the last are futexes.
	asked, begun, done atomic.Uint32

	// The request: an operation, and then probes of so many pages.
	op    uintptr
	nr    uintptr // of a system call
	args  [6]uintptr
	pages uintptr

	answer answer
	// Addresses to probe, and what was found.
	addresses [maxPages]uintptr
	found     [maxPages]answer
	digests   [maxPages]uintptr
	// scratch is for what system calls want in memory.
	scratch [4096]byte
}

const maxPages = 192

// An answer is what came of a system call or an access.
type answer struct {
	value, errno        uintptr
	signo, code, access uintptr
}

// The operations of a request.
const (
	opNothing = iota
	opCall
	opProbe  // args: operation of probe, address, value
	opFill   // args: address, end, first value; the value is the number of pages done
	opFork   // args: address of the new process's control
	opThread // args: flags of clone, stack, control
	opExit
)

// The operations of probe, which is written in assembly.
const (
	probeLoad8 = iota
	probeStore8
	probeLoad64
	probeStore64
	probeExec
	probeDigest
)

// probe accesses memory. If that raises SIGSEGV or SIGBUS, the handler continues it at landed, which
// returns the signal in place of the value. Faults of anything else end the worker.
func probe(op, addr, value uintptr) (result, signo, code, fault uintptr)

// entries are the addresses of the signal handler and of the function that it returns to.
func entries() (handler, restorer uintptr)

// spawn is clone(2) with a stack, on which the new thread or process serves a control. It returns
// its ID or a negative error number.
func spawn(flags, stack, control uintptr) (id uintptr)

// controlAt converts an address of shared memory, of which the collector knows nothing.
//
//go:nosplit
func controlAt(addr uintptr) *control { return *(**control)(unsafe.Pointer(&addr)) }

// serve carries out requests until it is told to exit.
//
//go:nosplit
//go:norace
func serve(c *control) {
	served := uint32(0)
	for {
		for c.asked.Load() == served {
			syscall.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&c.asked)), futexWait, uintptr(served), 0, 0, 0)
		}
		served++
		c.begun.Store(served)
		c.answer = answer{}
		switch c.op {
		case opCall:
			value, _, errno := syscall.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
			c.answer.value, c.answer.errno = value, uintptr(errno)
		case opProbe:
			c.answer = access(c.args[0], c.args[1], c.args[2])
		case opFill:
			fill(c)
		case opFork:
			next := controlAt(c.args[0])
			pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, unix.CLONE_PARENT|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if pid == 0 && errno == 0 {
				c, served = next, 0
				continue
			}
			c.answer.value, c.answer.errno = pid, uintptr(errno)
		case opThread:
			c.answer.value = spawn(c.args[0], c.args[1], c.args[2])
		case opExit:
			for {
				syscall.RawSyscall6(unix.SYS_EXIT_GROUP, c.args[0], 0, 0, 0, 0, 0)
			}
		}
		look(c)
		c.done.Store(served)
		syscall.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&c.done)), futexWake, 1, 0, 0, 0)
	}
}

const (
	futexWait = 0
	futexWake = 1
)

//go:nosplit
//go:norace
func access(op, addr, value uintptr) (a answer) {
	a.value, a.signo, a.code, a.access = probe(op, addr, value)
	return a
}

// fill stores in the first byte of each page. It ends at the first fault.
//
//go:nosplit
//go:norace
func fill(c *control) {
	addr, value, n := c.args[0], c.args[2], uintptr(0)
	for ; addr < c.args[1]; addr += pageSize {
		_, c.answer.signo, c.answer.code, c.answer.access = probe(probeStore8, addr, value)
		if c.answer.signo != 0 {
			break
		}
		value++
		n++
	}
	c.answer.value = n
}

// look reads the pages that were asked for.
//
//go:nosplit
//go:norace
func look(c *control) {
	for i := uintptr(0); i < c.pages && i < maxPages; i++ {
		c.found[i] = access(probeLoad64, c.addresses[i], 0)
		if c.found[i].signo == 0 {
			c.digests[i], _, _, _ = probe(probeDigest, c.addresses[i], 0)
		}
	}
}

// forkWorker makes the first worker. It is nosplit, since the signals that Go handles must stay
// blocked around it: the worker has no runtime to handle them.
func forkWorker(c *control, stack uintptr) (int, error) {
	const open = 1<<(unix.SIGSEGV-1) | 1<<(unix.SIGBUS-1)
	mask, old := ^uint64(open), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid := int(spawn(uintptr(unix.SIGCHLD), stack, uintptr(unsafe.Pointer(c))))
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	if pid < 0 {
		return 0, unix.Errno(-pid)
	}
	return pid, nil
}
