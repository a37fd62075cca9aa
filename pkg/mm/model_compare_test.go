package mm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	gerrors "gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"

	"sentrymm/pkg/vmatree"
)

// What must agree between a MemoryManager and its model, after every operation:
//
//  1. the mappings, as maximal as they can be, with all their attributes;
//  2. the counters of address space, locked and data memory, and the heap's end;
//  3. what is in memory that has pages, and that memory without pages is such as
//     needs none;
//  4. that pinned pages are still those of the mapping;
//  5. the registrations with files, and the references on their identities;
//  6. what validate and the host's model demand.

// modelProc is a MemoryManager and its model.
type modelProc struct {
	*testMM
	s *modelSpace
}

// addr returns the address of cell i.
func (p *modelProc) addr(i int) hostarch.Addr {
	return p.base + hostarch.Addr(i)*hostarch.Addr(p.s.w.cellSize())
}

// cells returns the range of n cells from i on.
func (p *modelProc) cells(i, n int) hostarch.AddrRange {
	return rangeAt(p.addr(i), uint64(n)*p.s.w.cellSize())
}

// compare returns the first thing in which p and its model differ.
func (p *modelProc) compare() error {
	if err := p.compareVMAs(); err != nil {
		return err
	}
	root := p.vmas.Snapshot()
	if got, want := root.Meta(), p.s.total(); got != want {
		return fmt.Errorf("counters are %+v, should be %+v", got, want)
	}
	if p.VirtualMemorySize() != p.s.total().as || p.VirtualDataSize() != p.s.total().data {
		return fmt.Errorf("sizes are %#x and %#x, should be %+v", p.VirtualMemorySize(), p.VirtualDataSize(), p.s.total())
	}
	if got, want := p.heap().End, p.addr(p.s.brkStart)+hostarch.Addr(p.s.brkBytes); got != want {
		return fmt.Errorf("the heap ends at %#x, should at %#x", got, want)
	}
	if p.ResidentSetSize() > p.MaxResidentSetSize() || p.ResidentSetSize() > p.VirtualMemorySize() {
		return fmt.Errorf("rss is %#x, at most %#x, of %#x", p.ResidentSetSize(), p.MaxResidentSetSize(), p.VirtualMemorySize())
	}
	return p.compareContents()
}

// compareVMAs compares the mappings.
func (p *modelProc) compareVMAs() error {
	var got, want []string
	for _, e := range p.mappings() {
		got = append(got, p.describe(addrRange(e.Range), e.Value))
	}
	for _, r := range p.s.runs(0, modelCells) {
		c := &p.s.cells[r.start]
		v := &vma{
			realPerms:    c.perms,
			maxPerms:     c.max,
			private:      c.private,
			growsDown:    c.grows,
			isStack:      c.stack,
			dontfork:     c.dontfork,
			mlockMode:    c.lock,
			numaPolicy:   c.numa,
			numaNodemask: c.nodes,
			name:         c.name,
			nameMut:      c.nameMut,
		}
		if c.file != nil {
			f := c.file.maps[c.alias]
			v.mappable, v.id, v.off = f, f.id, uint64(c.off)*p.s.w.cellSize()
		}
		want = append(want, p.describe(p.cells(r.start, r.end-r.start), v))
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("mappings are\n%s\nshould be\n%s", lines(got), lines(want))
	}
	return nil
}

// mappings returns the vmas, with those neighbours merged that only the space keeps
// apart which they are registered under: see keepPending.
func (p *modelProc) mappings() []vmatree.Entry[*vma] {
	var all []vmatree.Entry[*vma]
	for r, v := range p.vmas.Snapshot().All() {
		plain := *v
		plain.space = nil
		if n := len(all); n != 0 && all[n-1].End == r.Start {
			if _, ok := joinVMAs(all[n-1].Range, all[n-1].Value, &plain); ok {
				all[n-1].End = r.End
				continue
			}
		}
		all = append(all, vmatree.Entry[*vma]{Range: r, Value: &plain})
	}
	return all
}

func lines(ls []string) string {
	var out string
	for _, l := range ls {
		out += "\t" + l + "\n"
	}
	return out
}

// describe returns all that can be seen of a vma.
func (p *modelProc) describe(ar hostarch.AddrRange, v *vma) string {
	unit := p.s.w.cellSize()
	pos := func(a hostarch.Addr) string {
		n := uint64(a - p.base)
		if n%unit != 0 {
			return fmt.Sprintf("%d+%#x", n/unit, n%unit)
		}
		return fmt.Sprint(n / unit)
	}
	s := fmt.Sprintf("[%s,%s) %v/%v private=%t grows=%t stack=%t dontfork=%t lock=%d numa=%d/%d name=%q/%d",
		pos(ar.Start), pos(ar.End), v.realPerms, v.maxPerms, v.private, v.growsDown, v.isStack, v.dontfork, v.mlockMode, v.numaPolicy, v.numaNodemask, v.name, v.nameMut)
	if v.mappable != nil {
		s += fmt.Sprintf(" %s %s off=%#x", p.w.nameOf(v.mappable), p.w.nameOf(v.id), v.off/unit)
	}
	return s
}

// compareContents compares what memory holds that has pages. It looks at the
// pages behind the MemoryManager's back, so that nothing is made resident by it.
func (p *modelProc) compareContents() error {
	for i := range p.s.cells {
		c := &p.s.cells[i]
		if !c.mapped {
			continue
		}
		for k, off := range p.s.w.slotOffsets() {
			if err := p.compareSlot(i, k, p.addr(i)+hostarch.Addr(off)); err != nil {
				return fmt.Errorf("cell %d, slot %d: %w", i, k, err)
			}
		}
	}
	return nil
}

func (p *modelProc) compareSlot(i, k int, addr hostarch.Addr) error {
	c := &p.s.cells[i]
	pm, _, page, ok := p.pmaAt(addr)
	known, isKnown := uint32(0), false
	if !c.bus() || c.private {
		known, isKnown = c.value(k)
	}
	switch {
	case !ok && c.private && c.file == nil && known != 0, !ok && c.private && c.file != nil && isKnown:
		return fmt.Errorf("it has no pages, and should hold %#x", known)
	case !ok:
		return nil
	case c.bus():
		return fmt.Errorf("it has pages, behind the end of the file")
	case pm.private && !c.private:
		return errors.New("it has pages of its own, and should be shared")
	}
	got := p.word(page.Start)
	if !c.mayHold(k, got) {
		return fmt.Errorf("it holds %#x; should %#x (%t) or one of %#x", got, known, isKnown, c.slots[k].cands)
	}
	c.holds(k, got, pm.private)
	return nil
}

// word returns the word at off in the memory file.
func (p *modelProc) word(off uint64) uint32 {
	return binary.NativeEndian.Uint32(fileBytes(p.t, p.mf, memmap.FileRange{Start: off, End: off + 4}))
}

// comparePins checks that the pages of pins are those of the mappings.
func (p *modelProc) comparePins(pins map[int]modelPin) error {
	for i := range p.s.cells {
		for k, off := range p.s.w.slotOffsets() {
			slot := &p.s.cells[i].slots[k]
			for _, id := range slot.pins {
				pin := pins[id]
				_, _, page, ok := p.pmaAt(p.addr(i) + hostarch.Addr(off))
				if !ok || page.Start != pin.off {
					return fmt.Errorf("cell %d, slot %d: pin %d holds the page at %#x, which is at %#x (%t) now", i, k, id, pin.off, page.Start, ok)
				}
				if got := p.word(pin.off); got != slot.val {
					return fmt.Errorf("cell %d, slot %d: pin %d holds %#x, should %#x", i, k, id, got, slot.val)
				}
			}
		}
	}
	return nil
}

// modelReg is a cell of a file that is mapped.
type modelReg struct {
	space    memmap.MappingSpace
	cell     hostarch.Addr
	off      uint64
	writable bool
}

// compareFile compares contents, registrations and references of f.
func (d *modelDriver) compareFile(f *modelFile) error {
	for off := range f.size {
		for k, pos := range d.w.slotOffsets() {
			fr := f.set.find(uint64(off)*d.w.cellSize()+pos, 4)[0]
			if got := d.procs[0].word(fr.Start); got != f.vals[off][k] {
				return fmt.Errorf("%s holds %#x in cell %d, slot %d; should hold %#x", f.set.name, got, off, k, f.vals[off][k])
			}
		}
	}
	want, vmas := make(map[modelReg]bool), make(map[memmap.MappingIdentity]int)
	for _, p := range d.procs {
		for _, v := range p.vmas.Snapshot().All() {
			vmas[v.id]++
		}
		for _, r := range p.s.runs(0, modelCells) {
			c := &p.s.cells[r.start]
			if c.file != f {
				continue
			}
			for i := r.start; i < r.end; i++ {
				want[modelReg{p.MemoryManager, p.addr(i), uint64(p.s.cells[i].off) * d.w.cellSize(), !c.private && c.max.Write}] = true
			}
		}
	}
	for _, r := range f.set.registrations() {
		space := r.MappingSpace
		if s, ok := space.(*pendingSpace); ok {
			space = s.mm // it stayed there because the second AddMapping was refused
		}
		for n := hostarch.Addr(0); n < r.AddrRange.Length(); n += hostarch.Addr(d.w.cellSize()) {
			k := modelReg{space, r.AddrRange.Start + n, r.off + uint64(n), r.Writable}
			if !want[k] {
				return fmt.Errorf("%s has a registration too many: %+v\n%s", f.set.name, k, lines(f.set.dump()))
			}
			delete(want, k)
		}
	}
	for k := range want {
		return fmt.Errorf("%s has no registration %+v\n%s", f.set.name, k, lines(f.set.dump()))
	}
	for _, m := range f.maps {
		if got := m.id.count(); got != vmas[m.id]+1 {
			return fmt.Errorf("%s has %d references, and %d mappings", m.id.hooks.name, got, vmas[m.id])
		}
	}
	return nil
}

// sameError returns whether got is what the model says.
func sameError(got, want error) bool {
	var bus *memmap.BusError
	switch e := want.(type) {
	case nil:
		return got == nil
	case *gerrors.Error:
		return linuxerr.Equals(e, got)
	}
	switch want {
	case errBus:
		return errors.As(got, &bus)
	case errPopulate:
		return got != nil
	}
	return errors.Is(got, want)
}
