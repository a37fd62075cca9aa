package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safecopy"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

// pmaRequest says what pmas are wanted for.
type pmaRequest struct {
	// at is the kind of access that must be possible.
	at hostarch.AccessType

	// touchesAll is set if the caller is about to use every page, but not through
	// the sentry's page tables.
	touchesAll bool

	// unshare breaks copy-on-write even if nothing is written: the pages are going
	// to be pinned.
	unshare bool

	// ahead is set if the pages are wanted before anybody accesses them, so that
	// nobody has to wait then: private ones that can be written to are copied (Linux:
	// populate_vma_page_range).
	ahead bool

	// owner is the operation that has the range frozen, if one has.
	owner *operation

	// memory, if not nil, is memory to use where it fits.
	memory *committed

	// copyAside is set if the caller makes larger copies without locks: fill then returns errCopyAside, and memory says what to copy.
	copyAside bool

	// made, if not nil, is set to the range of new pmas, if all are in one.
	made *hostarch.AddrRange

	// old, if not nil, is set to what is left of pmas that were replaced. The caller settles it before activeMu is unlocked, or
	// no longer locked for writing only.
	old *leftover
}

// leftover is what is left of pmas that were replaced.
type leftover struct {
	// stale is what the host may have mapped that it must not have any more, and
	// dropped are the references of the pmas.
	stale   hostarch.AddrRange
	dropped []fileRef
}

// settle has the host unmap what is stale.
//
// Preconditions: activeMu is locked for writing.
func (l *leftover) settle(mm *MemoryManager) {
	mm.unmapHost(l.stale)
	l.stale = hostarch.AddrRange{}
}

// drop drops the references.
//
// Preconditions: l is settled.
func (l *leftover) drop() {
	for _, ref := range l.dropped {
		ref.file.DecRef(ref.fr)
	}
	l.dropped = nil
}

// accessTo returns the kind of access to v that must be possible.
func (r *pmaRequest) accessTo(v *vma) hostarch.AccessType {
	at := r.at
	at.Write = at.Write || r.ahead && v.private && v.effectivePerms.Write
	return at
}

// filler makes pmas exist. It lives for one call of fill.
type filler struct {
	mm   *MemoryManager
	ctx  context.Context
	root vmaSnapshot
	want pmaRequest
	cgID uint32

	// last is where the first vma of ar faulted before, or 0.
	last hostarch.Addr

	// ar is what is wanted, and wide is ar grown to the borders of huge pages:
	// memory is allocated and copied in that range, so that pages next to those
	// wanted do not fault one by one.
	ar   hostarch.AddrRange
	wide hostarch.AddrRange

	old leftover
}

// fill makes pmas exist for all pages of ar that allow accesses as req says. It
// returns how far it got from ar.Start on; the error, if any, says why that is
// short of ar.End.
//
// Preconditions:
//   - activeMu is locked for writing, and root was loaded since.
//   - ar is not empty.
//   - The vmas of root cover ar and permit the access.
//   - No operation but req.owner has any of ar frozen.
func (mm *MemoryManager) fill(ctx context.Context, root vmaSnapshot, ar hostarch.AddrRange, req pmaRequest) (hostarch.Addr, error) {
	end, ok := ar.End.RoundUp()
	if !ok {
		end = ar.End.RoundDown()
	}
	f := filler{
		mm:   mm,
		ctx:  ctx,
		root: root,
		want: req,
		cgID: pgalloc.MemoryCgroupIDFromContext(ctx),
		ar:   hostarch.AddrRange{Start: ar.Start.RoundDown(), End: end},
	}
	f.wide = growToHuge(f.ar)
	addr, err := f.run()
	if req.old != nil {
		*req.old = f.old
	} else {
		f.old.settle(mm)
		f.old.drop()
	}
	if err == nil && !ok {
		err = linuxerr.EFAULT
	}
	return min(addr, ar.End), err
}

// growToHuge returns ar extended to the borders of huge pages.
func growToHuge(ar hostarch.AddrRange) hostarch.AddrRange {
	wide := hostarch.AddrRange{Start: ar.Start.HugeRoundDown(), End: ar.End}
	if end, ok := ar.End.HugeRoundUp(); ok {
		wide.End = end
	}
	return wide
}

// run goes through f.ar and does at each address what is missing there, until
// nothing is.
func (f *filler) run() (hostarch.Addr, error) {
	var v vmatreeVMA
	for addr := f.ar.Start; ; {
		if addr >= f.ar.End {
			return f.ar.End, nil
		}
		if !v.contains(addr) {
			first := v.vma == nil
			v = vmaAt(f.root, addr)
			if first {
				f.last = hostarch.Addr(v.vma.hint.addr.Swap(uintptr(f.ar.Start)))
			}
		}
		next, err := f.step(v, addr)
		if err != nil && next < f.ar.End {
			return max(addr, next), err
		}
		addr = next
	}
}

// vmatreeVMA is a vma together with its range.
type vmatreeVMA struct {
	ar  hostarch.AddrRange
	vma *vma
}

func (v vmatreeVMA) contains(addr hostarch.Addr) bool {
	return v.vma != nil && v.ar.Contains(addr)
}

// vmaAt returns the vma that contains addr.
//
// Preconditions: there is one.
func vmaAt(root vmaSnapshot, addr hostarch.Addr) vmatreeVMA {
	e, _ := root.Find(uint64(addr))
	return vmatreeVMA{ar: addrRange(e.Range), vma: e.Value}
}

// direction guesses in which direction the application walks on from here, part of v, so that
// pages which it touches one after the other are neighbours in the memory file
// too, and their pmas can be merged, and the host's mappings.
//
// Preconditions: activeMu is locked for writing.
func (f *filler) direction(v vmatreeVMA) pgalloc.Direction {
	up := f.mm.layout.DefaultDirection == arch.MmapBottomUp
	switch {
	case f.last != 0 && f.last != f.ar.Start:
		up = f.last < f.ar.Start
	case v.vma.mappable != nil, f.mm.hasPMA(v.ar.Start - 1):
		up = true // the data of a program, and then what it has no bytes for
	}
	if up {
		return pgalloc.BottomUp
	}
	return pgalloc.TopDown
}

// step brings the pma at addr, which v contains, one step closer to what is
// wanted. It returns where to go on: addr itself, if there may be more to do. An
// error counts only if where it says to go on lies within f.ar.
func (f *filler) step(v vmatreeVMA, addr hostarch.Addr) (hostarch.Addr, error) {
	e, ok, hole := f.mm.pmaOrHole(addr, v.ar, f.want.owner)
	at := f.want.accessTo(v.vma)
	if ok && at.Write && e.Value.private && e.Value.needCOW {
		f.mm.hot.wrote(addr)
	}
	if fz := f.mm.frozen; ok && fz != nil && fz.op != f.want.owner {
		// Pages that an operation is having mapped may be part of the same pma.
		e = f.mm.isolatePMA(e, fz.clip(addrRange(e.Range), addr))
	}
	if ok && e.Value.private && v.vma.effectivePerms.Write {
		// If nobody else has the pages any more, who reads now need not fault again to write.
		f.mm.mustCopy(v, &e)
	}
	switch {
	case !ok && v.vma.mappable == nil:
		return f.allocate(v, addr, hole)
	case !ok:
		return f.translate(v, addr, hole, at)
	case (at.Write || f.want.unshare) && f.mm.mustCopy(v, &e):
		return f.copyOnWrite(v, e)
	case !e.Value.translatePerms.SupersetOf(at):
		return f.translate(v, addr, addrRange(e.Range).Intersect(v.ar), at.Union(e.Value.translatePerms))
	}
	// An mprotect may not have come here yet. What it loosens or exchanges must be
	// had now; what it only takes away it will take itself.
	if now, was := e.Value.allowed(v.vma), e.Value.effectivePerms; now != was && (now.SupersetOf(was) || !was.SupersetOf(at)) {
		e = f.mm.isolatePMA(e, v.ar)
		e.Value.limitTo(v.vma)
		if !now.SupersetOf(was) {
			f.outdated(addrRange(e.Range))
		}
	}
	return min(hostarch.Addr(e.End), v.ar.End), nil
}

// allocate backs anonymous memory around addr, within hole.
func (f *filler) allocate(v vmatreeVMA, addr hostarch.Addr, hole hostarch.AddrRange) (hostarch.Addr, error) {
	p := &pma{file: f.mm.mf, translatePerms: hostarch.AnyAccess, private: true}
	ar, fr, ok := f.want.memory.take(hole)
	if !ok {
		ar, p.huge = f.mm.firstHugePart(v.vma, hole.Intersect(f.wide))
		if !p.huge {
			fr, p.committed = f.mm.spares.take(uint64(ar.Length()), f.cgID)
		}
		if !p.committed {
			var err error
			if fr, err = f.memory(v, ar, p.huge); err != nil {
				return addr, err
			}
		}
	}
	p.off = fr.Start
	f.insert(ar, p, v.vma)
	return addr, nil
}

// memory allocates what is to be mapped at ar, part of v.
func (f *filler) memory(v vmatreeVMA, ar hostarch.AddrRange, huge bool) (memmap.FileRange, error) {
	opts := pgalloc.AllocOpts{
		Kind:    usage.Anonymous,
		MemCgID: f.cgID,
		Mode:    pgalloc.AllocateUncommitted,
		Huge:    huge,
		Dir:     f.direction(v),
	}
	// Huge pages are committed as a whole; otherwise the pages around those wanted
	// stay as they are.
	if f.want.touchesAll && (huge || ar.Length() == hostarch.PageSize) {
		opts.Mode = pgalloc.AllocateCallerIndirectCommit
	}
	return f.mm.mf.Allocate(uint64(ar.Length()), opts)
}

// insert adds p, a new pma of v, at ar.
func (f *filler) insert(ar hostarch.AddrRange, p *pma, v *vma) {
	p.limitTo(v)
	f.mm.insertPMA(ar, p)
	if fork := f.mm.forking; fork != nil {
		fork.madeAnew(ar)
	}
	if made := f.want.made; made != nil {
		switch {
		case made.Length() == 0:
			*made = ar
		case made.End == ar.Start:
			made.End = ar.End
		default:
			f.want.made = nil // in several; what is left there is part of it
		}
	}
}

// firstHugePart returns the part at the start of ar that is either made of whole
// huge pages, or of none.
func (mm *MemoryManager) firstHugePart(v *vma, ar hostarch.AddrRange) (part hostarch.AddrRange, huge bool) {
	// Little of a stack is used, and copy-on-write tears it to pieces.
	if !mm.mf.HugepagesEnabled() || v.growsDown || v.isStack {
		return ar, false
	}
	first, ok := ar.Start.HugeRoundUp()
	last := ar.End.HugeRoundDown()
	switch {
	case !ok || first >= last:
		return ar, false
	case first > ar.Start:
		return hostarch.AddrRange{Start: ar.Start, End: first}, false
	default:
		return hostarch.AddrRange{Start: first, End: last}, true
	}
}

// translate asks v's Mappable for the pages at addr and, if it has them, in the
// rest of within.
func (f *filler) translate(v vmatreeVMA, addr hostarch.Addr, within hostarch.AddrRange, at hostarch.AccessType) (hostarch.Addr, error) {
	if v.vma.private {
		// Writes go to a copy, which reads.
		at.Read, at.Write = true, false
	}
	required := within.Intersect(hostarch.AddrRange{Start: addr, End: f.ar.End})
	ts, err := v.vma.mappable.Translate(f.ctx, v.vma.mappableRange(v.ar.Start, required), v.vma.mappableRange(v.ar.Start, within), at)
	if len(ts) == 0 {
		return addr, err
	}
	for _, t := range ts {
		ar := v.addressesOf(t.Source)
		f.clear(ar)
		t.File.IncRef(t.FileRange(), f.cgID)
		f.insert(ar, &pma{file: t.File, off: t.Offset, translatePerms: t.Perms, needCOW: v.vma.private}, v.vma)
	}
	// Pages that are there now may still have to be copied. Why there are no more
	// of them will be asked again where they end, if that is wanted.
	return addr, nil
}

// addressesOf is the inverse of vma.mappableRange.
func (v vmatreeVMA) addressesOf(mr memmap.MappableRange) hostarch.AddrRange {
	start := v.ar.Start + hostarch.Addr(mr.Start-v.vma.off)
	return hostarch.AddrRange{Start: start, End: start + hostarch.Addr(mr.Length())}
}

// clear gives up the pmas in ar, if there are any.
func (f *filler) clear(ar hostarch.AddrRange) {
	old := f.mm.takePMAs(ar)
	for i := range old.Len() {
		f.replaced(old.At(i))
	}
}

// replaced notes that e's pages were replaced by others.
func (f *filler) replaced(e pmaEntry) {
	f.old.dropped = append(f.old.dropped, fileRef{e.Value.file, wholeFileRange(e)})
	f.outdated(addrRange(e.Range))
}

// outdated notes that what the host has mapped in ar must go.
func (f *filler) outdated(ar hostarch.AddrRange) {
	if f.old.stale.Length() != 0 {
		ar.Start, ar.End = min(ar.Start, f.old.stale.Start), max(ar.End, f.old.stale.End)
	}
	f.old.stale = ar
}

// mustCopy returns whether a write to e has to go to a copy. If nobody else has a
// reference on the pages, the pma takes them over instead, and e, which may have
// been cut to v for that, is ready.
//
// Preconditions: activeMu is locked for writing.
func (mm *MemoryManager) mustCopy(v vmatreeVMA, e *pmaEntry) bool {
	if !e.Value.needCOW {
		return false
	}
	*e = mm.isolatePMA(*e, v.ar)
	// References on private pages are taken with activeMu locked only, so "unique"
	// cannot become untrue. If one that Pin or holdPages took is taken for somebody else's
	// page, the copy was not needed, but does no harm: who holds it reads.
	if !e.Value.private || !mm.mf.HasUniqueRef(wholeFileRange(*e)) {
		return true
	}
	e.Value.needCOW = false
	e.Value.limitTo(v.vma)
	return false
}

// copyOnWrite gives v its own copy of the pages of e that are wanted, and of some
// around them.
func (f *filler) copyOnWrite(v vmatreeVMA, e pmaEntry) (hostarch.Addr, error) {
	if _, err := internalMappings(e); err != nil {
		return max(f.ar.Start, hostarch.Addr(e.Start)), err
	}
	ar, fr, of, ok := f.want.memory.takeCopy(e, v.ar)
	var err error
	if ok {
		f.old.dropped = append(f.old.dropped, of)
	} else {
		ar = addrRange(e.Range).Intersect(f.copyRange(v.vma, e.Value))
		if f.mm.forking != nil {
			f.mm.unmapHost(ar) // others may still be writing there: see shareMuch
		}
		if f.wantsAside(v, e, ar) {
			return max(f.ar.Start, ar.Start), errCopyAside
		}
		fr, err = f.mm.copyPages(blocksOf(e, ar), f.mm.copiesHuge(ar), f.direction(v), f.cgID)
	}
	if _, ok := err.(safecopy.BusError); ok {
		// The application gets SIGBUS, as if it had touched the page.
		err = &memmap.BusError{Err: err}
	}
	if fr.Length() == 0 {
		return max(f.ar.Start, ar.Start), err
	}
	huge := f.mm.copiesHuge(ar)
	ar.End = ar.Start + hostarch.Addr(fr.Length())
	f.clear(ar)
	f.insert(ar, &pma{file: f.mm.mf, off: fr.Start, translatePerms: hostarch.AnyAccess, private: true, huge: huge}, v.vma)
	return ar.End, err
}

// copyRange returns the range in which pages of p are copied together.
func (f *filler) copyRange(v *vma, p *pma) hostarch.AddrRange {
	switch {
	case f.want.ahead:
		return f.ar // pages next to it are nobody's business yet
	case v.effectivePerms.Execute:
		// These are breakpoints, and the zeroes that the ELF loader puts behind
		// a segment: writes to the neighbours are not to be expected.
		return f.ar
	case v.growsDown || v.isStack:
		// A forked child seldom gets far from where it is in its stack before it
		// executes something else.
		near := f.ar
		if near.Start >= hostarch.PageSize {
			near.Start -= hostarch.PageSize
		}
		if end, ok := near.End.AddLength(hostarch.PageSize); ok {
			near.End = end
		}
		return near
	case p.private && !f.mm.mf.HugepagesEnabled():
		// After a fork most memory is written to in few places, by both, or by none before one of them
		// executes something else. Who comes back gets more, each time.
		unit := hostarch.Addr(copyUnit) << v.hint.copiesNear(f.ar.Start)
		near := hostarch.AddrRange{Start: f.ar.Start &^ (unit - 1), End: (f.ar.End + unit - 1) &^ (unit - 1)}
		return near.Intersect(f.wide)
	default:
		return f.wide
	}
}

// copyUnit is what the first write in a place that is copy-on-write copies. To copy a huge page takes a
// millisecond, most of it for clearing and mapping what is copied to; this takes less than a fault
// (BenchmarkCopyUnit).
const copyUnit = 64 << 10
