package main

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// placed is the result of a call that returns the address of a mapping. One that the kernel chose is
// kept in a slot.
func (e *execution) placed(addr, length, slot uintptr, opaque bool, err error) (string, error) {
	if err != nil {
		return count(0, err)
	}
	p := e.actor.process
	if addr+length > arenaBase && addr < arenaEnd || addr >= p.heap && addr < p.heap+heapSpace {
		return p.where(addr), nil
	}
	length = (length + pageSize - 1) &^ (pageSize - 1)
	p.forget(addr, addr+length)
	p.slots[slot] = region{addr, length, opaque}
	return fmt.Sprintf("m%d", slot), nil
}

func (e *execution) mmap() (string, error) {
	slot := e.args[6]
	addr, err := e.actor.call(unix.SYS_MMAP, e.args[:6]...)
	text, err := e.placed(addr, e.args[1], slot, false, err)
	const low = 1 << 31
	if err == nil && e.args[3]&0x40 != 0 && text == fmt.Sprintf("m%d", slot) {
		text += fmt.Sprintf(", low: %v", addr < low)
	}
	return text, err
}

func (e *execution) munmap() (string, error) {
	value, err := e.actor.call(unix.SYS_MUNMAP, e.args...)
	if err == nil {
		e.actor.process.forget(e.args[0], e.args[0]+e.args[1])
	}
	return count(value, err)
}

func (e *execution) mremap() (string, error) {
	addr, err := e.actor.call(unix.SYS_MREMAP, e.args[:5]...)
	opaque := false
	if err == nil {
		for _, r := range e.actor.process.slots {
			opaque = opaque || r.opaque && r.contains(e.args[0])
		}
		// Wherever it went: what is left behind it is chance.
		e.actor.process.forget(e.args[0], e.args[0]+max(e.args[1], pageSize))
	}
	return e.placed(addr, e.args[2], e.args[5], opaque, err)
}

func (e *execution) brk() (string, error) {
	end, err := e.actor.call(unix.SYS_BRK, e.args[0])
	if err != nil {
		return count(end, err)
	}
	return e.actor.process.where(end), nil
}

func (e *execution) mincore() (string, error) {
	const space = 4096
	if pages := e.args[1] / pageSize; pages >= space && pages < 1<<40 {
		return "too long", nil
	}
	// What is resident is chance; that something was said is not.
	value, err := e.actor.call(unix.SYS_MINCORE, e.args[0], e.args[1], uintptr(unsafe.Pointer(&e.actor.scratch)))
	return count(value, err)
}

func (e *execution) shmget() (string, error) {
	id, err := e.actor.call(unix.SYS_SHMGET, unix.IPC_PRIVATE, e.args[1], unix.IPC_CREAT|0o700)
	if err == nil {
		e.segments[e.args[0]] = int(id)
		e.made = append(e.made, int(id))
	}
	return word("ok", err)
}

// segment is the identifier of a segment, or one that does not exist.
func (e *execution) segment() uintptr { return uintptr(e.segments[e.args[0]]) }

func (e *execution) shmat() (string, error) {
	var stat unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(int(e.segment()), unix.IPC_STAT, &stat); err != nil {
		stat.Segsz = 0
	}
	addr, err := e.actor.call(unix.SYS_SHMAT, e.segment(), e.args[1], e.args[2])
	return e.placed(addr, uintptr(stat.Segsz), e.args[3], false, err)
}

func (e *execution) shmdt() (string, error) {
	value, err := e.actor.call(unix.SYS_SHMDT, e.args...)
	if err == nil {
		e.actor.process.forget(e.args[0], e.args[0]+1)
	}
	return count(value, err)
}

func (e *execution) shmrm() (string, error) {
	return count(e.actor.call(unix.SYS_SHMCTL, e.segment(), unix.IPC_RMID, 0))
}

func (e *execution) shmstat() (string, error) {
	stat := (*unix.SysvShmDesc)(unsafe.Pointer(&e.actor.scratch))
	_, err := e.actor.call(unix.SYS_SHMCTL, e.segment(), unix.IPC_STAT, uintptr(unsafe.Pointer(stat)))
	return word(fmt.Sprintf("%d bytes, attached %d times, mode %o", stat.Segsz, stat.Nattch, stat.Perm.Mode), err)
}

func (e *execution) limit() (string, error) {
	soft := e.args[1]
	if resource := e.args[0]; int64(soft) >= 0 && resource != unix.RLIMIT_MEMLOCK {
		u, err := e.actor.process.usage()
		if err != nil {
			return "", err
		}
		used := u.size
		if resource == unix.RLIMIT_DATA {
			used = u.data
		}
		soft += uintptr(used)
	}
	a := e.actor
	// The hard limit stays: raising it again takes a privilege, and shrinking needs fewer steps without.
	if _, err := a.call(unix.SYS_PRLIMIT64, 0, e.args[0], 0, a.putWords(0)); err != nil {
		return count(0, err)
	}
	hard := a.word(8)
	value, err := a.call(unix.SYS_PRLIMIT64, 0, e.args[0], a.putWords(0, min(soft, hard), hard), 0)
	return count(value, err)
}

func (e *execution) fork() (string, error) {
	child := e.step.Args[0]
	if !isFree(e, child) {
		return "skipped: there already", nil
	}
	*control_(int(child)) = control{}
	got, err := e.actor.do(opFork, 0, controlBase+uintptr(child)*controlSpace)
	if err == nil {
		err = errnoOf(got)
	}
	if err != nil {
		return count(0, err)
	}
	a := e.addProcess(actorName(child), int(got.value), e.actor.process)
	if err := a.process.forgetUnmapped(); err != nil {
		return "", err
	}
	return word("ok", a.endWithParent())
}

func (e *execution) exit() (string, error) {
	if !e.step.Actor.IsChild() {
		return "skipped: not a child", nil
	}
	_, err := e.actor.do(opExit, 0, 0)
	var died diedError
	if errors.As(err, &died) {
		return died.Error(), nil
	}
	return "", err
}
