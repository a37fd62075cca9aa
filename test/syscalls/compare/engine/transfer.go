package main

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
)

func actorName(v int64) program.Actor { return program.Actor(v) }

// isFree reports whether a child of that name can be made.
func isFree(e *execution, child int64) bool {
	a := e.actors[child]
	return actorName(child).IsChild() && (a == nil || a.process.died != nil)
}

func (e *execution) seal() (string, error) {
	return count(e.actor.call(unix.SYS_FCNTL, e.args[0], unix.F_ADD_SEALS, e.args[1]))
}

func (e *execution) pread() (string, error) {
	// A buffer that is not there: where the file ends at once, Linux does not look at it.
	if e.program.Has(program.KindMap, unix.MAP_GROWSDOWN) {
		if p, err := e.buffer(e.args[1], e.args[2], true); p != whole || err != nil {
			return skippedPart, err
		}
	}
	if itself, err := e.ontoItself(e.step.Args[0], e.args[1], e.args[2]); itself || err != nil {
		return skippedItself, err
	}
	return count(e.actor.call(unix.SYS_PREAD64, e.args...))
}

func (e *execution) pwrite() (string, error) {
	if itself, err := e.ontoItself(e.step.Args[0], e.args[1], e.args[2]); itself || err != nil {
		return skippedItself, err
	}
	if skip, err := e.skipsWrite(e.args[1], e.args[2]); skip || err != nil {
		return skippedPart, err
	}
	return count(e.actor.call(unix.SYS_PWRITE64, e.args...))
}

func (e *execution) processVM() (string, error) {
	other := e.actors[e.step.Args[0]]
	if other == nil || other.process.died != nil {
		return skippedActor, nil
	}
	// These do not make mappings grow in Linux, and do in the sentry, which cannot tell them from read(2).
	if e.program.Has(program.KindMap, unix.MAP_GROWSDOWN) {
		if p, err := e.buffer(e.args[1], e.args[2], e.step.Op == program.VMRead); p != whole || err != nil {
			return skippedPart, err
		}
		remote := *e
		remote.actor = other.process.leader
		if p, err := remote.buffer(e.args[3], e.args[4], e.step.Op == program.VMWrite); p != whole || err != nil {
			return skippedPart, err
		}
	}
	if other.process == e.actor.process && e.args[1] < e.args[3]+e.args[4] && e.args[3] < e.args[1]+e.args[2] {
		return "skipped: memory onto itself", nil
	}
	nr := uintptr(unix.SYS_PROCESS_VM_READV)
	if e.step.Op == program.VMWrite {
		nr = unix.SYS_PROCESS_VM_WRITEV
	}
	local, remote := e.actor.putWords(0, e.args[1:3]...), e.actor.putWords(32, e.args[3:5]...)
	return count(e.actor.call(nr, uintptr(other.process.pid), local, 1, remote, 1, 0))
}

// Operations of futex(2), which package unix has no names for.
const (
	opFutexWait    = 0
	opFutexWake    = 1
	opFutexRequeue = 3
	maxWaiters     = 2 // threads that can sleep
)

// noPage reports whether there is a mapping without a page at an address, as behind the end of a file. Linux
// refuses a futex that is shared by processes there. The sentry does not know the end of a gofer's file.
func (e *execution) noPage(addr uintptr, private bool) (bool, error) {
	if private || !e.program.UsesHandle(program.Disk) && !e.program.UsesHandle(program.DiskRead) {
		return false, nil
	}
	got, err := e.actor.do(opProbe, 0, probeLoad8, addr)
	return got.signo == uintptr(unix.SIGBUS), err
}

// mlock and mlock2 refuse what has no page, too.
func (e *execution) mlock() (string, error) {
	const most = 64
	for addr := e.args[0] &^ (pageSize - 1); addr < e.args[0]+min(e.args[1], most*pageSize); addr += pageSize {
		if none, err := e.noPage(addr, false); none || err != nil {
			return noPage, err
		}
	}
	nr := uintptr(unix.SYS_MLOCK)
	if e.step.Op == program.Mlock2 {
		nr = unix.SYS_MLOCK2
	}
	return count(e.actor.call(nr, e.args...))
}

const noPage = "no page"

func (e *execution) futexWait() (string, error) {
	if none, err := e.noPage(e.args[0], e.args[2] != 0); none || err != nil {
		return noPage, err
	}
	// A time-out of a nanosecond: Linux takes 0 for no time-out at all with other operations.
	return count(e.actor.call(unix.SYS_FUTEX, e.args[0], opFutexWait|e.args[2], e.args[1], e.actor.putWords(0, 0, 1)))
}

func (e *execution) futexWake() (string, error) {
	if none, err := e.noPage(e.args[0], e.args[2] != 0); none || err != nil {
		return noPage, err
	}
	n, err := e.actor.call(unix.SYS_FUTEX, e.args[0], opFutexWake|e.args[2], e.args[1])
	if text, err := count(n, err); err != nil || n > maxWaiters {
		return text, err
	} else {
		return e.woke(text, int(n))
	}
}

func (e *execution) requeue() (string, error) {
	for _, addr := range []uintptr{e.args[0], e.args[3]} {
		if none, err := e.noPage(addr, e.args[4] != 0); none || err != nil {
			return noPage, err
		}
	}
	wake, requeue := e.args[1], e.args[2]
	n, err := e.actor.call(unix.SYS_FUTEX, e.args[0], opFutexRequeue|e.args[4], wake, requeue, e.args[3])
	if text, err := count(n, err); err != nil || n > maxWaiters {
		return text, err
	} else {
		return e.woke(text, int(min(n, wake)))
	}
}

// park starts a wait, and returns when the thread is asleep or the wait was refused.
func (e *execution) park() (string, error) {
	a := e.actor
	if !e.step.Actor.IsThread() {
		return "skipped: not a thread", nil
	}
	if none, err := e.noPage(e.args[0], e.args[2] != 0); none || err != nil {
		return noPage, err
	}
	a.request(opCall, unix.SYS_FUTEX, e.args[0], opFutexWait|e.args[2], e.args[1])
	a.ask()
	for a.done.Load() != a.asked.Load() {
		asleep, err := a.asleep()
		if err != nil {
			return "", err
		}
		if asleep {
			a.parked = true
			return "asleep", nil
		}
		runtime.Gosched()
	}
	return count(a.answer.value, errnoOf(a.answer))
}

func (e *execution) context() *uintptr { return &e.actor.process.contexts[e.args[0]] }

func (e *execution) aioSetup() (string, error) {
	const events = 4
	a := e.actor
	if _, err := a.call(unix.SYS_IO_SETUP, events, a.putWords(0, 0)); err != nil {
		return count(0, err)
	}
	*e.context() = a.word(0)
	// A context has a page at least. How many more depends on the number of processors.
	return e.placed(a.word(0), pageSize, e.args[1], true, nil)
}

// An iocb is struct iocb of aio_abi.h, for reads and writes.
type iocb struct {
	data     uint64
	key, _   uint32
	opcode   uint16
	priority int16
	fd       uint32
	buffer   uint64
	length   uint64
	offset   int64
	_        uint64
	_, _     uint32
}

func (e *execution) aioSubmit() (string, error) {
	a := e.actor
	if itself, err := e.ontoItself(e.step.Args[2], e.args[3], e.args[4]); itself || err != nil {
		return skippedItself, err
	}
	write := e.args[1] != 0
	// The sentry's io_submit does not say how much of a request was done that failed.
	if p, err := e.buffer(e.args[3], e.args[4], !write); p == partly || write && p == absent || err != nil {
		return skippedPart, err
	}
	cb := (*iocb)(unsafe.Pointer(&a.scratch[64]))
	*cb = iocb{opcode: uint16(e.args[1]), fd: uint32(e.args[2]), buffer: uint64(e.args[3]), length: uint64(e.args[4]), offset: int64(e.args[5])}
	pointer := a.putWords(0, uintptr(unsafe.Pointer(cb)))
	if n, err := a.call(unix.SYS_IO_SUBMIT, *e.context(), 1, pointer); err != nil || n != 1 {
		return count(n, err)
	}
	events := uintptr(unsafe.Pointer(&a.scratch[256]))
	n, err := a.call(unix.SYS_IO_GETEVENTS, *e.context(), 1, 1, events, a.putWords(0, 10, 0))
	if err != nil || n != 1 {
		return word(fmt.Sprintf("%d events", n), err)
	}
	// An event is data, the iocb, and two results.
	result := int64(a.word(256 + 16))
	if result < 0 {
		return "event " + unix.ErrnoName(unix.Errno(-result)), nil
	}
	return fmt.Sprintf("event %d", result), nil
}

func (e *execution) aioEvents() (string, error) {
	a := e.actor
	return count(a.call(unix.SYS_IO_GETEVENTS, *e.context(), 0, 1, uintptr(unsafe.Pointer(&a.scratch[256])), a.putWords(0, 0, 0)))
}

func (e *execution) aioDestroy() (string, error) {
	value, err := e.actor.call(unix.SYS_IO_DESTROY, *e.context())
	if err == nil {
		e.actor.process.forget(*e.context(), *e.context()+1)
	}
	return count(value, err)
}
