package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
)

// Results of steps that were not carried out.
const (
	skippedActor = "skipped: no such actor"
	skippedSlot  = "skipped: no such mapping"
	skippedBusy  = "skipped: asleep"
	skippedRing  = "skipped: kernel's memory"
)

// do carries out a step and returns its result.
func (s *session) do(step program.Step) (string, error) {
	a := s.actors[step.Actor]
	switch {
	case a == nil || a.process.died != nil:
		return skippedActor, nil
	case a.parked:
		return skippedBusy, nil
	}
	if s.touchesRing(a.process, step) {
		return skippedRing, nil
	}
	e := execution{session: s, actor: a, step: step}
	if !e.resolve() {
		return skippedSlot, nil
	}
	result, err := e.do()
	var died diedError
	if errors.As(err, &died) {
		return died.Error(), nil
	}
	return result, err
}

// touchesRing reports whether a step does more to a ring of AIO than to change its mapping. What is in
// there, and whether the program may write it, is the kernel's own affair.
func (s *session) touchesRing(p *process, step program.Step) bool {
	switch step.Op {
	case program.Munmap, program.Mremap, program.Mprotect, program.Mlock, program.Munlock, program.Madvise:
		return false
	}
	for i, kind := range step.Op.Args {
		a := program.Address(step.Args[i])
		if i == 3 && (step.Op == program.VMRead || step.Op == program.VMWrite) {
			if other := s.actors[step.Args[0]]; other != nil {
				p = other.process
			}
		}
		if kind == program.KindAddr && a.IsSlot() && p.slots[a.Slot()].opaque {
			return true
		}
	}
	return false
}

// An execution is a step with its arguments resolved.
type execution struct {
	*session
	actor *actor
	step  program.Step
	args  []uintptr
}

// resolve turns arguments into what system calls take. Lengths that follow an address of a slot are cut
// off at its end, and words that would cross it end there. It returns false if the step has an address that does not exist.
func (e *execution) resolve() bool {
	room := ^uintptr(0)
	owner := e.actor.process
	for i, kind := range e.step.Op.Args {
		v := e.step.Args[i]
		switch kind {
		case program.KindAddr:
			// The second address of these is the other process's.
			if i == 3 && (e.step.Op == program.VMRead || e.step.Op == program.VMWrite) {
				if other := e.actors[e.step.Args[0]]; other != nil {
					owner = other.process
				}
			}
			addr, ok := owner.resolve(program.Address(v))
			if !ok {
				return false
			}
			room = owner.room(program.Address(v), addr)
			if (e.step.Op == program.Load64 || e.step.Op == program.Store64) && room < 8 {
				addr, room = addr+room-8, 8
			}
			e.args = append(e.args, addr)
		case program.KindLen:
			e.args = append(e.args, min(uintptr(v), room))
			room = ^uintptr(0)
		case program.KindHandle:
			fd := ^uintptr(0)
			if v >= 0 && v < int64(program.Handles) {
				fd = uintptr(e.handles[v])
			}
			e.args = append(e.args, fd)
		default:
			e.args = append(e.args, uintptr(v))
		}
	}
	return true
}

// calls are the steps that are system calls with exactly their arguments.
var calls = map[*program.Op]uintptr{
	program.Mprotect: unix.SYS_MPROTECT, program.Madvise: unix.SYS_MADVISE,
	program.Munlock: unix.SYS_MUNLOCK, program.Mlockall: unix.SYS_MLOCKALL, program.Munlockall: unix.SYS_MUNLOCKALL, program.Msync: unix.SYS_MSYNC,
	program.Ftruncate: unix.SYS_FTRUNCATE, program.Fallocate: unix.SYS_FALLOCATE,
}

// others are the steps that are more than that.
var others map[*program.Op]func(*execution) (string, error)

func init() {
	others = map[*program.Op]func(*execution) (string, error){
		program.Mmap: (*execution).mmap, program.Munmap: (*execution).munmap, program.Mremap: (*execution).mremap, program.Brk: (*execution).brk,
		program.Mincore: (*execution).mincore, program.Shmget: (*execution).shmget, program.Shmat: (*execution).shmat, program.Shmdt: (*execution).shmdt,
		program.Shmrm: (*execution).shmrm, program.Shmstat: (*execution).shmstat, program.Seal: (*execution).seal,
		program.Read: (*execution).pipe, program.Write: (*execution).pipe, program.Readv: (*execution).pipe, program.Writev: (*execution).pipe,
		program.Pread: (*execution).pread, program.Pwrite: (*execution).pwrite, program.Fork: (*execution).fork, program.Exit: (*execution).exit,
		program.VMRead: (*execution).processVM, program.VMWrite: (*execution).processVM,
		program.FutexWait: (*execution).futexWait, program.FutexWake: (*execution).futexWake, program.Park: (*execution).park, program.Requeue: (*execution).requeue,
		program.AIOSetup: (*execution).aioSetup, program.AIOSubmit: (*execution).aioSubmit, program.AIOEvents: (*execution).aioEvents, program.AIODestroy: (*execution).aioDestroy,
		program.Limit: (*execution).limit, program.Mlock: (*execution).mlock, program.Mlock2: (*execution).mlock,
		program.Load: (*execution).load, program.Store: (*execution).store, program.Load64: (*execution).load64, program.Store64: (*execution).store64,
		program.Exec: (*execution).exec, program.Fill: (*execution).fill,
	}
}

func (e *execution) do() (string, error) {
	if nr, ok := calls[e.step.Op]; ok {
		return count(e.actor.call(nr, e.args...))
	}
	do, ok := others[e.step.Op]
	if !ok {
		return "", fmt.Errorf("no way to do %s", e.step.Op.Name)
	}
	return do(e)
}

// count is the result of a call that returns a number.
func count(value uintptr, err error) (string, error) {
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		return unix.ErrnoName(errno), nil
	case err != nil:
		return "", err
	}
	return fmt.Sprint(int(value)), nil
}

// word is the result of a call that returns nothing of interest but a word of our own.
func word(text string, err error) (string, error) {
	if err != nil {
		return count(0, err)
	}
	return text, nil
}

func (e *execution) access(op uintptr, args ...uintptr) (string, error) {
	got, err := e.actor.do(opProbe, 0, append([]uintptr{op}, args...)...)
	if err != nil {
		return "", err
	}
	if got.signo != 0 {
		return e.fault(got), nil
	}
	if op == probeLoad8 || op == probeLoad64 {
		return fmt.Sprintf("%#x", got.value), nil
	}
	return "ok", nil
}

func (e *execution) fault(got answer) string {
	return signalName(got) + " at " + e.actor.process.where(got.access)
}

func (e *execution) load() (string, error)   { return e.access(probeLoad8, e.args[0]) }
func (e *execution) load64() (string, error) { return e.access(probeLoad64, e.args[0]) }
func (e *execution) store() (string, error)  { return e.access(probeStore8, e.args[0], e.args[1]) }

func (e *execution) store64() (string, error) {
	return e.access(probeStore64, e.args[0], e.args[1]*0x0101010101010101)
}

// exec calls only what is known to return.
func (e *execution) exec() (string, error) {
	const returns = 0xc3
	got, err := e.actor.do(opProbe, 0, probeLoad8, e.args[0])
	if err != nil || got.signo == 0 && (got.value != returns || runtime.GOARCH != "amd64") {
		return "no code", err
	}
	return e.access(probeExec, e.args[0])
}

func (e *execution) fill() (string, error) {
	end := e.args[0] + min(e.args[1], arenaEnd-arenaBase)
	got, err := e.actor.do(opFill, 0, e.args[0], end, e.args[2])
	if err != nil {
		return "", err
	}
	if got.signo != 0 {
		return fmt.Sprintf("%d, %s", got.value, e.fault(got)), nil
	}
	return fmt.Sprint(got.value), nil
}

// woke adds to a result who was woken by it.
func (e *execution) woke(result string, number int) (string, error) {
	var names []string
	for len(names) < number {
		for _, a := range e.actors {
			if a == nil || !a.parked || a.done.Load() != a.asked.Load() {
				continue
			}
			a.parked = false
			text, err := count(a.answer.value, errnoOf(a.answer))
			if err != nil {
				return "", err
			}
			names = append(names, fmt.Sprintf("%v: %s", a.name, text))
		}
		runtime.Gosched()
		if err := e.actor.process.ended(); err != nil {
			return "", err
		}
	}
	if len(names) == 0 {
		return result, nil
	}
	return result + ", woke " + strings.Join(names, ", "), nil
}

func errnoOf(a answer) error {
	if a.errno == 0 {
		return nil
	}
	return unix.Errno(a.errno)
}
