package main

import (
	"fmt"

	"sentrymm/test/syscalls/compare/program"
)

const (
	arenaBase = program.ArenaBase
	arenaEnd  = arenaBase + program.ArenaPages*pageSize
	heapSpace = program.HeapPages * pageSize
)

// resolve returns where an address of the program is in the process, or false if it is relative to a
// mapping that there is not.
func (p *process) resolve(a program.Address) (uintptr, bool) {
	distance := uintptr(a.Distance())
	switch a.Region() {
	case program.Absolute:
		return distance, true
	case program.Arena:
		return arenaBase + distance, true
	case program.Heap:
		return p.heap + distance, true
	}
	r := p.slots[a.Slot()]
	if r.length == 0 {
		return 0, false
	}
	if distance >= r.length {
		distance = 0
	}
	return r.start + distance, true
}

// room is how long a range at a resolved address may be: what is behind a mapping at an address that the
// kernel chose is not the program's.
func (p *process) room(a program.Address, addr uintptr) uintptr {
	if !a.IsSlot() {
		return ^uintptr(0)
	}
	return p.slots[a.Slot()].end() - addr
}

// where is the reverse of resolve.
func (p *process) where(addr uintptr) string {
	if addr >= arenaBase-pageSize && addr <= arenaEnd+pageSize {
		return program.At(program.Arena, int64(addr)-arenaBase).String()
	}
	if addr >= p.heap && addr <= p.heap+heapSpace {
		return program.At(program.Heap, int64(addr-p.heap)).String()
	}
	for i, r := range p.slots {
		if r.contains(addr) {
			return r.where(i, addr)
		}
	}
	if addr < pageSize {
		return fmt.Sprintf("%#x", addr)
	}
	return "elsewhere"
}

// where is an address in the region of a slot, or its end.
func (r region) where(slot int, addr uintptr) string {
	return program.At(program.FirstSlot+slot, int64(addr-r.start)).String()
}
