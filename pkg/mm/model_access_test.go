package mm

import (
	"bytes"
	"encoding/binary"
	"slices"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// The operations that read and write memory and files.

// checkRead fails the test if slot k of cell i must not hold v.
func (d *modelDriver) checkRead(p *modelProc, i, k int, v uint32) {
	c := &p.s.cells[i]
	if !c.mayHold(k, v) {
		known, ok := c.value(k)
		d.t.Fatalf("%s\nread %#x in cell %d, slot %d; should be %#x (%t) or one of %#x", d.log[len(d.log)-1], v, i, k, known, ok, c.slots[k].cands)
	}
	c.holds(k, v, false)
}

// mayFail returns whether an error was injected into an access.
func (d *modelDriver) mayFail() bool { return d.fired("Translate") || d.fired("MapFile") }

// touch returns how many cells of [start, start+n) an access of type at gets through,
// and why it stops. What grows down does. If an error was injected, the access may not
// have come to that: then p says.
func (d *modelDriver) touch(p *modelProc, start, n int, at hostarch.AccessType, ignorePermissions bool) (int, error) {
	for {
		got, err := p.s.reach(start, n, at, ignorePermissions)
		hole := start + got
		switch {
		case got == n, hole >= modelCells, p.s.cells[hole].mapped:
			return got, err
		case d.mayFail() && p.VirtualMemorySizeRange(p.cells(hole, 1)) == 0:
			return got, err
		case !p.s.growDown(hole):
			return got, err
		}
	}
}

// opLoad reads as the application does.
func (d *modelDriver) opLoad(p *modelProc) {
	start, n := d.span(6)
	d.say(p, "application reads %d, n=%d", start, n)
	for i := start; i < start+n; i++ {
		for k, off := range d.w.slotOffsets() {
			b, err := p.load(p.addr(i)+hostarch.Addr(off), 4)
			_, want := d.touch(p, i, 1, hostarch.Read, false)
			if err != nil && d.mayFail() {
				continue
			}
			d.mustAgree(err, want)
			if err == nil {
				d.checkRead(p, i, k, binary.NativeEndian.Uint32(b))
			} else if !p.s.at(i).mapped {
				break // or it might grow down to the middle of the cell
			}
		}
	}
}

// opStore writes as the application does.
func (d *modelDriver) opStore(p *modelProc) {
	start, n := d.span(6)
	d.say(p, "application writes %d, n=%d: %#x...", start, n, d.token+1)
	for i := start; i < start+n; i++ {
		for k, off := range d.w.slotOffsets() {
			v := d.newToken()
			err := p.store(p.addr(i)+hostarch.Addr(off), binary.NativeEndian.AppendUint32(nil, v))
			_, want := d.touch(p, i, 1, hostarch.Write, false)
			if err != nil && d.mayFail() {
				continue
			}
			d.mustAgree(err, want)
			if err == nil {
				p.s.set(i, k, v)
			} else if !p.s.at(i).mapped {
				break
			}
		}
	}
}

// ioError is what I/O says for an access that got through got of n cells.
func ioError(got, n int) error {
	if got < n {
		return linuxerr.EFAULT
	}
	return nil
}

// agreeIO compares how far I/O of n cells at start got with the model, and returns
// how many bytes were done.
func (d *modelDriver) agreeIO(done int64, err error, reach, n int) uint64 {
	d.t.Helper()
	want := int64(reach) * int64(d.w.cellSize())
	if d.mayFail() && done < want {
		if err == nil {
			d.t.Fatalf("%s\ndid %#x bytes, without an error", d.log[len(d.log)-1], done)
		}
		return uint64(done)
	}
	if done != want {
		d.t.Fatalf("%s\ndid %#x bytes (%v); should have done %#x", d.log[len(d.log)-1], done, err, want)
	}
	if !d.mayFail() {
		d.mustAgree(err, ioError(reach, n))
	}
	return uint64(done)
}

// eachSlot calls f for the slots in the first done bytes at cell start.
func (d *modelDriver) eachSlot(start int, done uint64, f func(i, k int, off uint64)) {
	for i := 0; uint64(i)*d.w.cellSize() < done; i++ {
		for k, off := range d.w.slotOffsets() {
			if off += uint64(i) * d.w.cellSize(); off+4 <= done {
				f(start+i, k, off)
			}
		}
	}
}

func (d *modelDriver) opCopyIn(p *modelProc) {
	start, n := d.span(4)
	n = min(n, modelCells-start)
	opts := usermem.IOOpts{IgnorePermissions: d.chance(3)}
	buf := make([]byte, uint64(n)*d.w.cellSize())
	done, err := p.CopyIn(p.ctx, p.addr(start), buf, opts)
	d.say(p, "copyin(%d, n=%d, ignore=%t) = %#x, %v", start, n, opts.IgnorePermissions, done, err)
	reach, _ := d.touch(p, start, n, hostarch.Read, opts.IgnorePermissions)
	d.eachSlot(start, d.agreeIO(int64(done), err, reach, n), func(i, k int, off uint64) {
		d.checkRead(p, i, k, binary.NativeEndian.Uint32(buf[off:]))
	})
}

func (d *modelDriver) opCopyOut(p *modelProc) {
	start, n := d.span(4)
	n = min(n, modelCells-start)
	opts := usermem.IOOpts{IgnorePermissions: d.chance(3)}
	buf := d.tokens(n)
	done, err := p.CopyOut(p.ctx, p.addr(start), buf, opts)
	d.say(p, "copyout(%d, n=%d, ignore=%t) = %#x, %v", start, n, opts.IgnorePermissions, done, err)
	reach, _ := d.touch(p, start, n, hostarch.Write, opts.IgnorePermissions)
	d.wrote(p, start, d.agreeIO(int64(done), err, reach, n), buf)
}

// tokens returns what n cells full of tokens contain.
func (d *modelDriver) tokens(n int) []byte {
	buf := make([]byte, uint64(n)*d.w.cellSize())
	d.eachSlot(0, uint64(len(buf)), func(_, _ int, off uint64) {
		binary.NativeEndian.PutUint32(buf[off:], d.newToken())
	})
	return buf
}

// wrote tells the model that the first done bytes of buf were written.
func (d *modelDriver) wrote(p *modelProc, start int, done uint64, buf []byte) {
	d.eachSlot(start, done, func(i, k int, off uint64) {
		p.s.set(i, k, binary.NativeEndian.Uint32(buf[off:]))
	})
}

// opVec copies from or to two ranges at once.
func (d *modelDriver) opVec(p *modelProc) {
	a, an := d.span(2)
	b, bn := d.span(2)
	an, bn = min(an, modelCells-a), min(bn, modelCells-b)
	if a < b+bn && b < a+an {
		return // what is written last would be unclear
	}
	seq := hostarch.AddrRangeSeqFromSlice([]hostarch.AddrRange{p.cells(a, an), {}, p.cells(b, bn)})
	at, out := hostarch.Read, d.chance(2)
	var buf []byte
	var done int64
	var err error
	if out {
		at, buf = hostarch.Write, d.tokens(an+bn)
		done, err = p.CopyOutFrom(p.ctx, seq, safemem.FromIOReader{Reader: bytes.NewReader(buf)}, usermem.IOOpts{})
	} else {
		var w bytes.Buffer
		done, err = p.CopyInTo(p.ctx, seq, safemem.FromIOWriter{Writer: &w}, usermem.IOOpts{})
		buf = w.Bytes()
	}
	d.say(p, "copy %v (%d, n=%d) and (%d, n=%d) = %#x, %v", at, a, an, b, bn, done, err)
	// Permissions are looked at first, for all of it.
	reach := d.vecReach(p, at, a, an, b, bn)
	got := d.agreeIO(done, err, reach, an+bn)
	first := min(got, uint64(an)*d.w.cellSize())
	if out {
		d.wrote(p, a, first, buf)
		d.wrote(p, b, got-first, buf[first:])
		return
	}
	check := func(start int, done uint64, buf []byte) {
		d.eachSlot(start, done, func(i, k int, off uint64) {
			d.checkRead(p, i, k, binary.NativeEndian.Uint32(buf[off:]))
		})
	}
	check(a, first, buf)
	check(b, got-first, buf[first:])
}

func (d *modelDriver) vecReach(p *modelProc, at hostarch.AccessType, a, an, b, bn int) int {
	n, _ := d.touch(p, a, an, at, false)
	if n < an {
		return n
	}
	m, _ := d.touch(p, b, bn, at, false)
	return n + m
}

// opWord does an atomic operation on the first word of a cell.
func (d *modelDriver) opWord(p *modelProc) {
	i := d.choose(modelCells)
	addr, v := p.addr(i), d.newToken()
	var old uint32
	var err error
	op, write, at := d.choose(4), true, hostarch.ReadWrite
	switch op {
	case 0:
		old, err = p.SwapUint32(p.ctx, addr, v, usermem.IOOpts{})
	case 1:
		old, err = p.CompareAndSwapUint32(p.ctx, addr, ^uint32(0), v, usermem.IOOpts{})
		write = false
	case 2:
		known, _ := p.s.cells[i].slots[0].val, 0
		old, err = p.CompareAndSwapUint32(p.ctx, addr, known, v, usermem.IOOpts{})
		write = old == known
	case 3:
		old, err = p.LoadUint32(p.ctx, addr, usermem.IOOpts{})
		write, at = false, hostarch.Read
	}
	d.say(p, "word operation %d at %d = %#x, %v", op, i, old, err)
	reach, _ := d.touch(p, i, 1, at, false)
	if err != nil && d.mayFail() {
		return
	}
	d.mustAgree(err, ioError(reach, 1))
	if err == nil {
		d.checkRead(p, i, 0, old)
		if write {
			p.s.set(i, 0, v)
		}
	}
}

func (d *modelDriver) opZeroOut(p *modelProc) {
	start, n := d.span(4)
	n = min(n, modelCells-start)
	done, err := p.ZeroOut(p.ctx, p.addr(start), int64(n)*int64(d.w.cellSize()), usermem.IOOpts{})
	d.say(p, "zeroout(%d, n=%d) = %#x, %v", start, n, done, err)
	reach, _ := d.touch(p, start, n, hostarch.Write, false)
	got := d.agreeIO(done, err, reach, n)
	d.wrote(p, start, got, make([]byte, got))
}

// opFile changes a file behind its mappings.
func (d *modelDriver) opFile(p *modelProc) {
	f := d.files[d.choose(2)]
	cell := d.w.cellSize()
	switch b := d.next(); b % 4 {
	case 0:
		size := d.choose(modelFileCells)
		d.logf("truncate %s to %d", f.set.name, size)
		f.set.truncate(uint64(size) * cell)
		d.w.truncate(f, size)
	case 1:
		off, k := d.choose(modelFileCells), int(b>>2)%len(d.w.slotOffsets())
		if off >= f.size {
			return
		}
		v := d.newToken()
		d.logf("write %#x to %s at %d", v, f.set.name, off)
		f.set.write(uint64(off)*cell+d.w.slotOffsets()[k], binary.NativeEndian.AppendUint32(nil, v))
		d.w.setFile(f, off, k, v)
	case 2, 3:
		off, n := d.choose(modelFileCells), 1+d.choose(4)
		if n = min(n, f.size-off); n <= 0 {
			return
		}
		mr := memmap.MappableRange{Start: uint64(off) * cell, End: uint64(off+n) * cell}
		if b%4 == 3 {
			d.logf("invalidate %s at %d, n=%d, and private copies", f.set.name, off, n)
			f.set.invalidate(mr, memmap.InvalidateOpts{InvalidatePrivate: true})
			d.w.dropCopies(f, off, off+n)
			return
		}
		d.logf("punch a hole into %s at %d, n=%d", f.set.name, off, n)
		f.set.replace(mr)
		for i := off; i < off+n; i++ {
			for k := range d.w.slotOffsets() {
				d.w.setFile(f, i, k, 0)
			}
		}
	}
}

// opPin pins pages, which must become the mapping's own.
func (d *modelDriver) opPin(p *modelProc) {
	start, n := d.span(4)
	n = min(n, modelCells-start)
	at := []hostarch.AccessType{hostarch.Read, hostarch.Write}[d.choose(2)]
	prs, err := p.Pin(p.ctx, p.cells(start, n), at, false)
	d.say(p, "pin(%d, n=%d, %v) = %d ranges, %v", start, n, at, len(prs), err)
	group := modelPins{prs: prs}
	got := 0
	for _, pr := range prs {
		if pr.Source.Start != p.addr(start)+hostarch.Addr(got) {
			d.t.Fatalf("%s\npinned %v", d.log[len(d.log)-1], prs)
		}
		got += int(pr.Source.Length())
	}
	reach, want := p.s.reach(start, n, at, false)
	if d.mayFail() && got < reach*int(d.w.cellSize()) {
		want = errPopulate
	} else if got != reach*int(d.w.cellSize()) {
		d.t.Fatalf("%s\npinned %v; should be %d cells", d.log[len(d.log)-1], prs, reach)
	}
	if !d.mayFail() || want == errPopulate {
		d.mustAgree(err, want)
	}
	d.eachSlot(start, uint64(got), func(i, k int, off uint64) {
		c := &p.s.cells[i]
		page := filePageOf(prs, p.addr(start)+hostarch.Addr(off))
		d.checkRead(p, i, k, p.word(page))
		if c.private {
			d.ids++
			c.slots[k].own, c.slots[k].val, c.slots[k].cands = true, p.word(page), nil
			c.slots[k].pins = append(slices.Clone(c.slots[k].pins), d.ids)
			d.pins[d.ids] = modelPin{page}
			group.ids = append(group.ids, d.ids)
		}
	})
	if len(prs) != 0 {
		d.groups = append(d.groups, group)
	}
}

// filePageOf returns where the page at addr is.
func filePageOf(prs []PinnedRange, addr hostarch.Addr) uint64 {
	for _, pr := range prs {
		if pr.Source.Contains(addr) {
			return pr.Offset + uint64(addr-pr.Source.Start)
		}
	}
	return 0
}

func (d *modelDriver) opUnpin(*modelProc) {
	if len(d.groups) != 0 {
		i := d.choose(len(d.groups))
		d.logf("unpin %v", d.groups[i].ids)
		d.unpin(i)
	}
}

func (d *modelDriver) unpin(i int) {
	Unpin(d.groups[i].prs)
	for _, id := range d.groups[i].ids {
		delete(d.pins, id)
		for _, s := range d.w.spaces {
			for j := range s.cells {
				for k := range s.cells[j].slots {
					slot := &s.cells[j].slots[k]
					slot.pins = slices.DeleteFunc(slices.Clone(slot.pins), func(x int) bool { return x == id })
				}
			}
		}
	}
	d.groups = append(d.groups[:i:i], d.groups[i+1:]...)
}

// opPinnedWrite writes to a pinned page, as a device does. Who has it mapped sees
// that.
func (d *modelDriver) opPinnedWrite(*modelProc) {
	if len(d.groups) == 0 {
		return
	}
	g := d.groups[d.choose(len(d.groups))]
	if len(g.ids) == 0 {
		return
	}
	id, v := g.ids[d.choose(len(g.ids))], d.newToken()
	d.logf("device writes %#x to the page of pin %d", v, id)
	fillFile(d.t, d.procs[0].mf, d.pins[id].off, binary.NativeEndian.AppendUint32(nil, v))
	for _, s := range d.w.spaces {
		for j := range s.cells {
			for k := range s.cells[j].slots {
				if slices.Contains(s.cells[j].slots[k].pins, id) {
					s.set(j, k, v)
				}
			}
		}
	}
}
