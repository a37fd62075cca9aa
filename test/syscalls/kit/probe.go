package kit

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Access is what came of one load, store or call: a value, or the signal that it raised.
type Access struct {
	Value  uint64
	Signal unix.Signal // 0 if the access went through
	Code   int         // si_code
	Addr   uintptr     // si_addr
}

// Faulted reports whether the access raised a signal.
func (a Access) Faulted() bool { return a.Signal != 0 }

// String is the value, or the signal by name with its address.
func (a Access) String() string {
	if !a.Faulted() {
		return fmt.Sprintf("%#x", a.Value)
	}
	return fmt.Sprintf("%s at %#x", a.SignalName(), a.Addr)
}

// SignalName is signal and code as in "SIGSEGV/MAPERR".
func (a Access) SignalName() string {
	names := map[unix.Signal]map[int]string{
		unix.SIGSEGV: {1: "MAPERR", 2: "ACCERR", 3: "BNDERR", 4: "PKUERR", 0x80: "KERNEL"},
		unix.SIGBUS:  {1: "ADRALN", 2: "ADRERR", 3: "OBJERR", 0x80: "KERNEL"},
	}
	code, known := names[a.Signal][a.Code]
	if !known {
		code = fmt.Sprint(a.Code)
	}
	return unix.SignalName(a.Signal) + "/" + code
}

// The operations of probe, which is written in assembly.
const (
	probeLoad8 = iota
	probeStore8
	probeLoad64
	probeStore64
	probeExec
)

// probe accesses memory. If that raises SIGSEGV or SIGBUS, the handler of this package continues it at
// probeLanded, which returns the signal in place of the value. It can be called on any thread and in
// a forked child, needs no stack to speak of, and leaves other faults to Go's runtime.
func probe(op, addr, value uintptr) (result, signo, code, fault uintptr)

// handlerPC is the address of the signal handler.
func handlerPC() uintptr

// goHandlers are Go's own handlers of SIGSEGV and SIGBUS, called for what is no probe.
var goHandlers [2]uintptr

// A kernelAction is struct sigaction as the system call has it.
type kernelAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// catchFaults puts the handler of this package before Go's.
func catchFaults() error {
	for i, signal := range []unix.Signal{unix.SIGSEGV, unix.SIGBUS} {
		var act kernelAction
		if _, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(signal), 0, uintptr(unsafe.Pointer(&act)), 8, 0, 0); e != 0 {
			return fmt.Errorf("rt_sigaction(%v): %w", signal, e)
		}
		goHandlers[i] = act.handler
		act.handler = handlerPC()
		if _, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0); e != 0 {
			return fmt.Errorf("rt_sigaction(%v): %w", signal, e)
		}
	}
	return nil
}
