package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// MRemapMoveMode says whether MRemap may move a mapping.
type MRemapMoveMode int

const (
	// MRemapNoMove changes the size in place or fails.
	MRemapNoMove MRemapMoveMode = iota

	// MRemapMayMove moves the mapping if it cannot be changed in place
	// (MREMAP_MAYMOVE).
	MRemapMayMove

	// MRemapMustMove moves the mapping to MRemapOpts.NewAddr, replacing what is
	// there (MREMAP_FIXED).
	MRemapMustMove
)

// MRemapOpts are options of MRemap.
type MRemapOpts struct {
	// Move says whether to move.
	Move MRemapMoveMode

	// NewAddr is where to, with MRemapMustMove.
	NewAddr hostarch.Addr
}

// remap is what one call of MRemap is asked for, in pages.
type remap struct {
	old     hostarch.AddrRange
	newSize hostarch.Addr
	MRemapOpts

	// populate is the part that has to be populated because the mapping is locked.
	populate hostarch.AddrRange
}

// MRemap changes the size of the mapping of the oldSize bytes at oldAddr to
// newSize, moves it, or both, as mremap(2) does, and returns where it is then. An
// oldSize of 0 makes a second mapping of shared memory.
//
//	Move     | oldSize 0 | grow              | same size | shrink
//	NoMove   | ENOMEM    | in place          | nothing   | in place
//	MayMove  | copy      | in place or move  | nothing   | in place
//	MustMove | copy      | move and grow     | move      | shrink and move
//
// Everything that can be refused beforehand is, and then nothing has changed. Only
// the Mappable's CopyMapping can fail later; then, as in Linux, what was at the
// destination, and the part of the source beyond newSize, are unmapped.
//
// Errors: EINVAL for unaligned, empty, overflowing or overlapping ranges, and for
// an oldSize of 0 of a private mapping; EFAULT if the old range is not one mapping;
// ENOMEM for no room or a limit; EAGAIN for RLIMIT_MEMLOCK; and CopyMapping's.
func (mm *MemoryManager) MRemap(ctx context.Context, oldAddr hostarch.Addr, oldSize uint64, newSize uint64, opts MRemapOpts) (hostarch.Addr, error) {
	r, err := mm.newRemap(hostarch.UntaggedUserAddr(oldAddr), oldSize, newSize, opts)
	if err != nil {
		return 0, err
	}
	mm.mappingMu.Lock()
	addr, ops, err := mm.mremapLocked(ctx, r)
	mm.mappingMu.Unlock()
	for _, op := range ops {
		op.finish()
	}
	if err == nil && r.populate.Length() != 0 {
		mm.populate(ctx, r.populate, population{effect: memmap.PlatformEffectCommit})
	}
	return addr, err
}

// newRemap refuses arguments that make no sense whatever is mapped.
func (mm *MemoryManager) newRemap(oldAddr hostarch.Addr, oldSize, newSize uint64, opts MRemapOpts) (*remap, error) {
	// Linux lets a size that overflows when rounded up to pages be 0.
	oldLen, _ := hostarch.PageRoundUp(oldSize)
	newLen, ok := hostarch.PageRoundUp(newSize)
	if !ok || newLen == 0 || newLen > uint64(mm.layout.MaxAddr) || !oldAddr.IsPageAligned() {
		return nil, linuxerr.EINVAL
	}
	old, ok := oldAddr.ToRange(oldLen)
	if !ok {
		return nil, linuxerr.EINVAL
	}
	r := &remap{old: old, newSize: hostarch.Addr(newLen), MRemapOpts: opts}
	if opts.Move == MRemapMustMove {
		dst, ok := opts.NewAddr.ToRange(newLen)
		if !ok || dst.End > mm.layout.MaxAddr || !opts.NewAddr.IsPageAligned() || dst.Overlaps(old) {
			return nil, linuxerr.EINVAL
		}
		if dst.Contains(oldAddr) {
			// What is to be copied would be replaced. (Linux finds that out when it
			// has unmapped it.)
			return nil, linuxerr.EFAULT
		}
	}
	return r, nil
}

// mremapLocked does what r says and returns where the mapping is then. The caller
// calls finish on each of the returned operations.
//
// Preconditions: mappingMu is locked.
func (mm *MemoryManager) mremapLocked(ctx context.Context, r *remap) (hostarch.Addr, []*operation, error) {
	root := mm.vmas.Snapshot()
	e, ok := root.Find(uint64(r.old.Start))
	if !ok {
		return 0, nil, linuxerr.EFAULT
	}
	v := vmatreeVMA{ar: addrRange(e.Range), vma: e.Value}
	oldSize := r.old.Length()
	if oldSize == 0 && v.vma.private {
		return 0, nil, linuxerr.EINVAL
	}
	if r.Move != MRemapMustMove && r.newSize <= oldSize {
		// These do not care whether the rest of the range is mapped, or to what.
		if r.newSize == oldSize {
			return r.old.Start, nil, nil
		}
		op := mm.begin(ctx)
		op.unmap(hostarch.AddrRange{Start: r.old.Start + r.newSize, End: r.old.End})
		return r.old.Start, []*operation{op}, nil
	}
	// What shrinking cuts off may be anything, too.
	if v.ar.End < r.old.Start+min(oldSize, r.newSize) {
		return 0, nil, linuxerr.EFAULT
	}
	if off := v.vma.offsetAt(v.ar.Start, r.old.Start); v.vma.mappable != nil && r.newSize > oldSize && off+uint64(r.newSize) < off {
		return 0, nil, linuxerr.EINVAL
	}

	var ops []*operation
	if r.Move != MRemapMustMove {
		op := mm.begin(ctx)
		if err := op.checkGrowth(v.vma, uint64(r.newSize-oldSize)); err != nil {
			op.abort()
			return 0, []*operation{op}, err
		}
		err := op.growInPlace(r, v)
		if err == nil || r.Move == MRemapNoMove {
			return r.old.Start, []*operation{op}, err
		}
		ops = append(ops, op)
	}
	op := mm.begin(ctx)
	err := op.moveMapping(r, v)
	return op.fresh.ar.Start, append(ops, op), err
}

// growInPlace extends v, which ends with or behind r.old, by mapping more of the
// same behind it.
//
// Preconditions: mappingMu is locked. The caller calls finish.
func (op *operation) growInPlace(r *remap, v vmatreeVMA) error {
	more := hostarch.AddrRange{Start: r.old.End, End: r.old.Start + r.newSize}
	if more.End < more.Start {
		op.abort()
		return linuxerr.ENOMEM
	}
	opts := memmap.MMapOpts{Addr: more.Start, Length: uint64(more.Length()), Fixed: true}
	if _, err := op.mm.place(&opts); err != nil {
		op.abort()
		return err
	}
	rest := *v.vma
	rest.off = v.vma.offsetAt(v.ar.Start, more.Start)
	rest.space = nil
	if rest.mlockMode == memmap.MLockEager {
		r.populate = more
	}
	return op.mapVMA(more, &rest, &opts, false, nil)
}

// moveMapping moves or, if r.old is empty, copies the mapping v. The pages go
// along, and no page is ever at neither place.
//
// Preconditions: mappingMu is locked. v covers what of r.old is not cut off. The
// caller calls finish.
func (op *operation) moveMapping(r *remap, v vmatreeVMA) error {
	dst, err := op.destination(r)
	if err != nil {
		op.abort()
		return err
	}
	// Gather what is at the destination, and what shrinking cuts off.
	src := r.old
	op.gather(dst)
	if src.Length() > r.newSize {
		src.End = src.Start + r.newSize
		op.gather(hostarch.AddrRange{Start: src.End, End: r.old.End})
	}
	moved := *v.vma
	moved.off = v.vma.offsetAt(v.ar.Start, src.Start)
	// The vma at the source is still counted, so only what it grows by is new.
	if err := op.checkGrowth(&moved, uint64(dst.Length()-src.Length())); err != nil {
		op.abort()
		return err
	}

	// From here on the old mappings of these ranges are lost.
	source := op.evacuate(src, dst)
	if m := moved.mappable; m != nil {
		// AIO needs the MemoryManager itself here, and gets it: its rings never stay
		// registered under a pending space.
		if err := m.CopyMapping(op.ctx, moved.registeredWith(op.mm), src, dst, moved.off, moved.canWriteMappable()); err != nil {
			op.mm.activeMu.Lock()
			op.publish()
			op.mm.activeMu.Unlock()
			op.thawMove()
			return err
		}
	}

	// Install: source gone, destination there, pages moved, at once.
	var from *gathered
	if src.Length() != 0 {
		from = op.gather(src)
	}
	op.fresh = newMapping{ar: dst, vma: &moved}
	op.insert(dst, &moved)
	old := op.installMove(from, source, dst)

	// Complete the source.
	if from != nil {
		from.pmas = old
		op.unmapPieces(from)
		from.pmas = takenPMAs{} // they live on at the destination
		op.deregister(from)
	}
	op.thawMove()
	if moved.mlockMode == memmap.MLockEager {
		r.populate = dst
	}
	return nil
}

// destination chooses where the mapping goes.
//
// Preconditions: mappingMu is locked.
func (op *operation) destination(r *remap) (hostarch.AddrRange, error) {
	opts := memmap.MMapOpts{Length: uint64(r.newSize)}
	if r.Move == MRemapMustMove {
		opts.Addr, opts.Fixed, opts.Unmap = r.NewAddr, true, true
	}
	return op.mm.place(&opts)
}

// checkGrowth refuses what limits forbid: n more bytes of v, in the place of what
// was gathered. Linux checks nothing if n is 0, even if limits are exceeded already.
//
// Preconditions: mappingMu is locked.
func (op *operation) checkGrowth(v *vma, n uint64) error {
	if n == 0 {
		return nil
	}
	if v.mlockMode != memmap.MLockNone {
		if err := op.checkLocked(n, op.before.Meta().locked-op.count.locked, false); err != nil {
			return err
		}
	}
	return op.mayGrow(v, n)
}

// evacuate freezes source and destination and removes what the gathered ranges
// hold, for good: pmas, host mappings, registrations. It announces the move and
// returns the frozen source, nil if that is empty.
//
// The registrations have to be gone before CopyMapping adds the new one: it may
// have the same key. Nothing is published yet.
//
// Preconditions: mappingMu is locked; activeMu is not.
func (op *operation) evacuate(src, dst hostarch.AddrRange) *frozenRange {
	mm := op.mm
	mm.activeMu.Lock()
	for _, g := range op.gone {
		g.fz = mm.freezeRange(op, g.ar)
		g.fz.register = true
		if g.pmas = mm.takePMAs(g.ar); g.pmas.Len() != 0 {
			g.fz.hostPending()
		}
	}
	var source *frozenRange
	if src.Length() != 0 {
		source = mm.freezeRange(op, src)
	}
	mm.activeMu.Unlock()
	// All host work comes before all deregistering: a Mappable that waits, in
	// Invalidate and with its locks held, for the former must not keep the latter
	// waiting for it.
	for _, g := range op.gone {
		op.unmapPieces(g)
	}
	for _, g := range op.gone {
		op.deregister(g)
	}
	mm.activeMu.Lock()
	for _, g := range op.gone {
		g.fz.register = false
	}
	if src.Length() != 0 {
		mm.frozen.move = &pmaMove{src: src, dst: dst}
	}
	mm.activeMu.Unlock()
	return source
}

// installMove publishes the new tree and moves the pmas. It returns the ranges
// that the host still has to unmap at the source; if they are small, it has.
//
// Preconditions: mappingMu is locked; activeMu is not. from is nil if there is no
// source.
func (op *operation) installMove(from *gathered, source *frozenRange, dst hostarch.AddrRange) takenPMAs {
	mm := op.mm
	mm.activeMu.Lock()
	defer mm.activeMu.Unlock()
	op.publish()
	mm.frozen.move = nil
	if from == nil {
		return takenPMAs{}
	}
	from.fz = source
	source.register = true
	source.movedTo = op.gone[0].fz // the destination
	moved := mm.takePMAs(from.ar)
	mm.putPMAs(&moved, uint64(dst.Start-from.ar.Start))
	if moved.Covered() > pieceSize {
		source.hostPending()
		return moved
	}
	if n := moved.Len(); n != 0 {
		mm.unmapHost(hostarch.AddrRange{Start: hostarch.Addr(moved.At(0).Start), End: hostarch.Addr(moved.At(n - 1).End)})
	}
	return takenPMAs{}
}

// thawMove ends the freeze.
//
// Preconditions: mappingMu is locked; activeMu is not.
func (op *operation) thawMove() {
	op.mm.thaw()
	op.mm.validateIfEnabled()
}
