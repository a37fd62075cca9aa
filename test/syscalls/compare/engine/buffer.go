package main

import (
	"strings"

	"golang.org/x/sys/unix"
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

// skipsWrite reports whether a write to a file on disk is left out. With a buffer that is not there it
// fails, and still some file systems make the file longer.
func (e *execution) skipsWrite(fd, addr, length uintptr) (bool, error) {
	if !e.onDisk(fd) {
		return false, nil
	}
	p, err := e.buffer(addr, length, false)
	return p != whole, err
}
