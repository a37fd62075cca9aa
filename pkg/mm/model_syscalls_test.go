package mm

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// The operations that change mappings: each takes its arguments from the sequence,
// calls the MemoryManager and the model, and compares what they return.

// cell returns the cell of an address that a system call returned.
func (d *modelDriver) cell(p *modelProc, addr hostarch.Addr) int {
	n := uint64(addr-p.base) / d.w.cellSize()
	if p.addr(int(n)) != addr {
		d.t.Fatalf("%s\nreturned %#x, which is not where a cell begins", d.log[len(d.log)-1], addr)
	}
	return int(n)
}

func (d *modelDriver) opMmap(p *modelProc) {
	r := modelMmap{modelAttrs: modelAttrs{private: true, max: hostarch.AnyAccess, nameMut: memmap.NameMutAnon}}
	r.addr, r.n = d.span(12)
	how := d.next()
	switch how % 8 {
	case 0, 1, 2, 3:
		r.fixed = true
	case 4:
		r.noReplace = true
	case 5:
		r.addr = -1
	}
	r.perms = modelPerms[d.choose(len(modelPerms))]
	if what := d.next(); what%2 != 0 {
		f := d.files[what>>1&1]
		r.file, r.alias, r.private, r.nameMut = f, int(what>>2&1), what>>3&1 != 0, memmap.NameMutDisallowed
		r.off = d.choose(modelFileCells/2 - 2)
		if d.chance(4) {
			r.max = hostarch.ReadExecute
		}
	} else {
		r.grows, r.stack = what&0x70 == 0x70, what&0x70 == 0x60
	}
	if d.chance(8) {
		r.lock = modelLocks[1+d.choose(2)]
	}
	opts := memmap.MMapOpts{
		Length:    uint64(r.n) * d.w.cellSize(),
		Perms:     r.perms,
		MaxPerms:  r.max,
		Private:   r.private,
		GrowsDown: r.grows,
		Stack:     r.stack,
		MLockMode: r.lock,
		NameMut:   r.nameMut,
		Fixed:     r.fixed || r.noReplace,
		Unmap:     r.fixed,
		NoReplace: r.noReplace,
	}
	if r.addr >= 0 {
		opts.Addr = p.addr(r.addr)
	}
	if r.file != nil {
		f := r.file.maps[r.alias]
		opts.Mappable, opts.MappingIdentity, opts.Offset = f, f.id, uint64(r.off)*d.w.cellSize()
	}
	opts.PlatformEffect = memmap.MMapPlatformEffect(how >> 3 % 3)
	opts.RequirePlatformEffect = how&0x80 != 0

	addr, err := p.MMap(p.ctx, opts)
	d.say(p, "mmap(%d, n=%d, %v, max %v, private=%t, %s off=%d, grows=%t, stack=%t, lock=%d, fixed=%t, noreplace=%t, effect=%d, required=%t) = %#x, %v",
		r.addr, r.n, r.perms, r.max, r.private, d.fileName(r.file, r.alias), r.off, r.grows, r.stack, r.lock, r.fixed, r.noReplace, opts.PlatformEffect, opts.RequirePlatformEffect, addr, err)

	before := *p.s
	start, asked, want := p.s.mmap(r, d.refusal("AddMapping", 1))
	if want == nil && opts.RequirePlatformEffect && opts.PlatformEffect >= memmap.PlatformEffectPopulate && r.perms.Any() {
		bus := false
		for i := range r.n {
			c := p.s.at(start + i)
			bus = bus || c.bus()
		}
		switch {
		case d.fired("Translate"), d.fired("MapFile"):
			want = d.fail.err
		case bus:
			want = errBus
		}
		if want != nil {
			*p.s = before
		}
	}
	d.mustAgree(err, want)
	if err == nil && start != d.cell(p, addr) {
		d.t.Fatalf("%s\nshould have returned cell %d", d.log[len(d.log)-1], start)
	}
	if d.fail != nil && d.fail.on == "AddMapping" && d.fail.n == 1 && asked != d.fail.fired {
		d.t.Fatalf("%s\nasked the file: %t; should have: %t", d.log[len(d.log)-1], d.fail.fired, asked)
	}
}

func (d *modelDriver) fileName(f *modelFile, alias int) string {
	if f == nil {
		return "anonymous"
	}
	return f.maps[alias].hooks.name
}

func (d *modelDriver) opMunmap(p *modelProc) {
	start, n := d.span(16)
	err := p.MUnmap(p.ctx, p.addr(start), uint64(n)*d.w.cellSize()-uint64(d.choose(2)))
	d.say(p, "munmap(%d, n=%d) = %v", start, n, err)
	if start+n > modelCells {
		d.mustAgree(err, linuxerr.EINVAL)
		return
	}
	d.mustAgree(err, nil)
	p.s.clear(start, start+n)
}

func (d *modelDriver) opMprotect(p *modelProc) {
	start, n := d.span(16)
	perms, grows := modelPerms[d.choose(len(modelPerms))], d.chance(8)
	err := p.MProtect(p.addr(start), uint64(n)*d.w.cellSize(), perms, grows)
	d.say(p, "mprotect(%d, n=%d, %v, growsdown=%t) = %v", start, n, perms, grows, err)
	d.mustAgree(err, p.s.mprotect(start, n, perms, grows))
}

func (d *modelDriver) opMremap(p *modelProc) {
	var r modelRemap
	r.old, r.oldN = d.choose(modelCells), d.choose(10)
	r.newN, r.to = d.choose(12), d.choose(modelCells)
	r.mode = MRemapMoveMode(d.choose(3))
	// Most random ranges are not one mapping: aim at those that are.
	if rs := p.s.runs(0, modelCells); len(rs) != 0 && !d.chance(4) {
		run := rs[d.choose(len(rs))]
		r.old = run.start + r.old%(run.end-run.start)
		r.oldN = min(r.oldN, run.end-r.old)
	}
	if r.mode == MRemapMustMove && d.chance(2) {
		// Several mappings, with what is between them.
		r.oldN *= 4
		r.newN = r.oldN
		r.to %= 1 + modelCells - r.newN
	}
	opts := MRemapOpts{Move: r.mode, NewAddr: p.addr(r.to)}
	addr, err := p.MRemap(p.ctx, p.addr(r.old), uint64(r.oldN)*d.w.cellSize(), uint64(r.newN)*d.w.cellSize(), opts)
	d.say(p, "mremap(%d, n=%d, to n=%d, mode %d, to %d) = %#x, %v", r.old, r.oldN, r.newN, r.mode, r.to, addr, err)
	start, want := p.s.mremap(r, d.refusal("AddMapping", 1), func(n int) error { return d.refusal("CopyMapping", n) })
	d.mustAgree(err, want)
	if err == nil && d.cell(p, addr) != start {
		d.t.Fatalf("%s\nshould have returned cell %d", d.log[len(d.log)-1], start)
	}
}

func (d *modelDriver) opMlock(p *modelProc) {
	start, n := d.span(16)
	mode := modelLocks[d.choose(3)]
	err := p.MLock(p.ctx, p.addr(start)+17, uint64(n)*d.w.cellSize()-18, mode)
	d.say(p, "mlock(%d, n=%d, mode %d) = %v", start, n, mode, err)
	want := p.s.mlock(start, n, mode)
	if mode == memmap.MLockEager && d.mayFail() {
		want = errPopulate
	}
	d.mustAgree(err, want)
}

func (d *modelDriver) opMlockall(p *modelProc) {
	b := d.next()
	opts := MLockAllOpts{Current: b&1 != 0, Future: b&2 != 0, Mode: modelLocks[b>>2%3]}
	err := p.MLockAll(p.ctx, opts)
	d.say(p, "mlockall(%+v) = %v", opts, err)
	d.mustAgree(err, p.s.mlockall(opts))
}

func (d *modelDriver) opDecommit(p *modelProc) {
	start, n := d.span(16)
	err := p.Decommit(p.addr(start), uint64(n)*d.w.cellSize())
	d.say(p, "madvise(%d, n=%d, DONTNEED) = %v", start, n, err)
	d.mustAgree(err, p.s.decommit(start, n))
}

func (d *modelDriver) opAdvise(p *modelProc) {
	start, n := d.span(16)
	b, size := d.next(), uint64(n)*d.w.cellSize()
	switch b % 3 {
	case 0:
		on := b>>2&1 != 0
		err := p.SetDontFork(p.addr(start), size, on)
		d.say(p, "madvise(%d, n=%d, DONTFORK %t) = %v", start, n, on, err)
		d.mustAgree(err, p.s.advise(start, n, func(c *modelCell) error {
			c.dontfork = on
			return nil
		}))
	case 1:
		name, none := fmt.Sprintf("n%d", b>>2%2), b>>3&3 == 0
		err := p.SetVMAAnonName(p.addr(start), size, name, none)
		d.say(p, "prctl(SET_VMA_ANON_NAME, %d, n=%d, %q, nil=%t) = %v", start, n, name, none, err)
		d.mustAgree(err, p.s.advise(start, n, func(c *modelCell) error {
			if c.nameMut == memmap.NameMutDisallowed {
				return linuxerr.EBADF
			}
			if c.name = "[anon:" + name + "]"; none {
				c.name = ""
			}
			return nil
		}))
	case 2:
		policy, nodes := linux.NumaPolicy(b>>2%3), uint64(b>>4%2)
		err := p.SetNumaPolicy(p.addr(start), size, policy, nodes)
		d.say(p, "mbind(%d, n=%d, %d, %d) = %v", start, n, policy, nodes, err)
		d.mustAgree(err, p.s.mbind(start, n, policy, nodes))
	}
}

func (d *modelDriver) opBrk(p *modelProc) {
	n := (int64(d.choose(14)) - 1) * int64(d.w.cellSize())
	n -= int64(d.choose(2)) * 17
	end, err := p.Brk(p.ctx, p.addr(p.s.brkStart)+hostarch.Addr(n))
	d.say(p, "brk(%d cells) = %#x, %v", n/int64(d.w.cellSize()), end, err)
	d.mustAgree(err, p.s.setBrk(n))
	if want := p.addr(p.s.brkStart) + hostarch.Addr(p.s.brkBytes); end != want {
		d.t.Fatalf("%s\nshould have returned %#x", d.log[len(d.log)-1], want)
	}
}

func (d *modelDriver) opFork(p *modelProc) {
	const most = 3
	if len(d.procs) >= most {
		return
	}
	child, err := p.Fork(p.ctx)
	d.say(p, "fork() = %v", err)
	if d.fired("AddMapping") {
		d.mustAgree(err, d.fail.err)
		return
	}
	d.mustAgree(err, nil)
	c := &modelProc{wrapMM(d.t, child, p.ctx.clone()), p.s.fork()}
	c.base = p.base
	d.procs = append(d.procs, c)
	d.w.spaces = append(d.w.spaces, c.s)
}

func (d *modelDriver) opExit(p *modelProc) {
	if len(d.procs) == 1 {
		return
	}
	d.say(p, "exit()")
	for i, q := range d.procs {
		if q == p {
			d.procs = append(d.procs[:i:i], d.procs[i+1:]...)
			d.w.spaces = append(d.w.spaces[:i:i], d.w.spaces[i+1:]...)
			break
		}
	}
	p.exit()
}

// opRestore saves and restores the only process.
func (d *modelDriver) opRestore(p *modelProc) {
	if len(d.procs) != 1 || d.fail != nil {
		return
	}
	d.say(p, "save and restore")
	base := p.base
	p.testMM = p.saveAndRestore()
	p.base = base
	w := worldOf(d.t)
	for _, f := range d.files {
		for i, m := range f.maps {
			f.maps[i] = replacementOf(w, w.maps, m)
		}
		f.set = replacementOf(w, w.sets, f.set)
		for _, m := range f.maps {
			m.set = f.set // also of those that were not mapped, and not saved
		}
	}
}
