package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
)

// A process is what workers share, and what of its memory the program knows.
type process struct {
	name   program.Actor // of its first thread
	leader *actor
	pid    int
	died   error // how it ended, or nil

	heap  uintptr // where it begins
	slots [program.Slots]region
	// contexts of AIO, as io_setup returned them.
	contexts [program.Contexts]uintptr

	seen map[string]string // views as they were reported last
	// lines are those of maps when they were read last, and absent what was found where they show nothing.
	lines  []line
	absent map[uintptr]string
	base   usage // in the beginning
}

// A region is where a kernel-chosen mapping was put.
type region struct {
	start, length uintptr
	opaque        bool // holds what the kernel writes for itself
}

func (r region) end() uintptr { return r.start + r.length }

func (r region) contains(addr uintptr) bool { return addr >= r.start && addr < r.end() }

// usage is what /proc/[pid]/status says, in bytes.
type usage struct{ size, data int64 }

// ended returns how the process ended, or nil if it has not.
func (p *process) ended() error {
	if p.died != nil {
		return p.died
	}
	var status unix.WaitStatus
	pid, err := unix.Wait4(p.pid, &status, unix.WNOHANG, nil)
	switch {
	case err == unix.EINTR || err == nil && pid == 0:
		return nil
	case err != nil:
		return fmt.Errorf("wait4(%d): %w", p.pid, err)
	}
	p.died = diedError{status}
	return p.died
}

// kill ends the process and waits for it.
func (p *process) kill() error {
	for p.died == nil {
		if err := unix.Kill(p.pid, unix.SIGKILL); err != nil {
			return fmt.Errorf("kill(%d): %w", p.pid, err)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(p.pid, &status, 0, nil); err == nil {
			p.died = diedError{status}
		} else if err != unix.EINTR {
			return fmt.Errorf("wait4(%d): %w", p.pid, err)
		}
	}
	return nil
}

// forget drops what is known of the slots that the range touches. Where the kernel unmapped something
// it may put something else, which is then in two slots, on one machine and not on another.
func (p *process) forget(start, end uintptr) {
	for i, r := range p.slots {
		if r.length != 0 && r.start < end && start < r.end() {
			p.slots[i] = region{}
		}
	}
	// What is mapped in the place of a ring, by chance, could pass for it.
	for i, ring := range p.contexts {
		if ring >= start && ring < end {
			p.contexts[i] = 0
		}
	}
}

// forgetUnmapped drops slots of which not all is mapped, as in a child that did not get all its parent has.
func (p *process) forgetUnmapped() error {
	data, err := p.proc("maps")
	if err != nil {
		return err
	}
	lines, err := parseMaps(data)
	if err != nil {
		return err
	}
	for i, r := range p.slots {
		for addr := r.start; addr < r.end(); addr += pageSize {
			if !isMapped(lines, addr) {
				p.slots[i] = region{}
				break
			}
		}
	}
	return nil
}

func (p *process) proc(name string) ([]byte, error) {
	return os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid, name))
}

// usage reads what the process uses now.
func (p *process) usage() (u usage, err error) {
	data, err := p.proc("status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		var field *int64
		switch name {
		case "VmSize":
			field = &u.size
		case "VmData":
			field = &u.data
		default:
			continue
		}
		kb, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		if err != nil {
			return u, fmt.Errorf("/proc/%d/status: %w", p.pid, err)
		}
		*field = kb << 10
	}
	return u, nil
}
