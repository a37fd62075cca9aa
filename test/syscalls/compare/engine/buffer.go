package main

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
)

// How much of a buffer can be accessed.
type presence int

const (
	whole presence = iota
	partly
	absent // the first byte cannot be accessed
)

// buffer reports how much of a range the actor could read, or write. It changes nothing but that pages of
// files are there afterwards.
func (e *execution) buffer(addr, length uintptr, write bool) (presence, error) {
	data, err := e.actor.process.proc("maps")
	if err != nil {
		return 0, err
	}
	lines, err := parseMaps(data)
	if err != nil {
		return 0, err
	}
	end := min(addr+length, addr+arenaEnd-arenaBase)
	at := addr
	for _, l := range lines {
		if at >= end || l.start > at {
			break
		}
		if l.end <= at {
			continue
		}
		if write && l.perms[1] != 'w' || !strings.ContainsAny(l.perms[:3], "rwx") {
			break
		}
		for stop := min(end, l.end); at < stop; at = at&^(pageSize-1) + pageSize {
			if !l.file {
				continue
			}
			got, err := e.actor.do(opProbe, 0, probeLoad8, at)
			if err != nil {
				return 0, err
			}
			if got.signo != 0 {
				return partOr(at > addr), nil
			}
		}
		at = max(at, min(end, l.end))
	}
	if at >= end {
		return whole, nil
	}
	return partOr(at > addr), nil
}

func partOr(some bool) presence {
	if some {
		return partly
	}
	return absent
}

// pipe is a read or write of a pipe with one buffer or two. With a buffer that is there in part, Linux
// goes by pieces of the pipe, which is not what is compared here.
func (e *execution) pipe() (string, error) {
	nrs := map[string]uintptr{"read": unix.SYS_READ, "write": unix.SYS_WRITE, "readv": unix.SYS_READV, "writev": unix.SYS_WRITEV}
	name := e.step.Op.Name
	var first presence
	for i := 1; i+1 < len(e.args); i += 2 {
		p, err := e.buffer(e.args[i], e.args[i+1], strings.HasPrefix(name, "read"))
		if err != nil {
			return "", err
		}
		if p == partly || i > 1 && p != first {
			return skippedPart, nil
		}
		first = p
	}
	if strings.HasSuffix(name, "v") {
		return count(e.actor.call(nrs[name], e.args[0], e.actor.putWords(0, e.args[1:5]...), 2))
	}
	return count(e.actor.call(nrs[name], e.args...))
}

const skippedPart = "skipped: buffer not there"

// ontoItself reports whether some of a range is a shared mapping of the file that a handle is. In which order
// bytes are copied there is not promised.
func (e *execution) ontoItself(h int64, addr, length uintptr) (bool, error) {
	names := map[program.Handle]string{program.Disk: "/disk ", program.DiskRead: "/disk ", program.Tmpfs: "/tmpfs ", program.Memfd: "/memfd:", program.Sealed: "/memfd:"}
	name, isFile := names[program.Handle(h)]
	data, err := e.actor.process.proc("maps")
	if err != nil || !isFile {
		return false, err
	}
	lines, err := parseMaps(data)
	if err != nil {
		return false, err
	}
	end := min(addr+length, addr+arenaEnd-arenaBase)
	return slices.ContainsFunc(lines, func(l line) bool {
		return l.start < end && addr < l.end && l.perms[3] == 's' && strings.Contains(l.name+" ", name)
	}), nil
}

const skippedItself = "skipped: file onto itself"

// skipsWrite reports whether a write to a file is left out. With a buffer that is not there it fails, and still
// Linux's file systems make the file longer.
func (e *execution) skipsWrite(addr, length uintptr) (bool, error) {
	p, err := e.buffer(addr, length, false)
	return p != whole, err
}
