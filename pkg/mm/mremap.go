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
}

// movesOnly returns whether nothing but the address is to change. Then the range may
// hold any number of mappings, with holes between them (Linux 6.17: vrm_move_only).
func (r *remap) movesOnly() bool {
	return r.Move == MRemapMustMove && r.newSize == r.old.Length()
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
// A move that keeps the size takes all that is mapped in the old range along, and
// the holes between; what lies at the destination of a hole stays. What changes the
// size has to be one mapping, but for what shrinking cuts off.
//
// Everything that can be refused beforehand is, and then nothing has changed. Only
// the Mappable's CopyMapping can fail later; then, as in Linux, what was at the
// destination, and the part of the source beyond newSize, are unmapped. Of several
// mappings those below the one that fails have moved, and what lies at the
// destination of those above it stays.
//
// Errors: EINVAL for unaligned, empty, overflowing or overlapping ranges, and for
// an oldSize of 0 of a private mapping; EFAULT if nothing is mapped at oldAddr, if
// the old range is not one mapping and has to be, at a mapping that moves alone only
// (see movesInCompany), and for growth of one that keeps its size (see vma.fixedSize);
// ENOMEM for no room or a limit; EAGAIN for RLIMIT_MEMLOCK; and CopyMapping's.
func (mm *MemoryManager) MRemap(ctx context.Context, oldAddr hostarch.Addr, oldSize uint64, newSize uint64, opts MRemapOpts) (hostarch.Addr, error) {
	r, err := mm.newRemap(hostarch.UntaggedUserAddr(oldAddr), oldSize, newSize, opts)
	if err != nil {
		return 0, err
	}
	mm.mappingMu.Lock()
	addr, ops, err := mm.mremapLocked(ctx, &r)
	mm.mappingMu.Unlock()
	for _, op := range ops {
		if op != nil {
			op.finish()
		}
	}
	return addr, err
}

// newRemap refuses arguments that make no sense whatever is mapped.
func (mm *MemoryManager) newRemap(oldAddr hostarch.Addr, oldSize, newSize uint64, opts MRemapOpts) (remap, error) {
	// Linux lets a size that overflows when rounded up to pages be 0.
	oldLen, _ := hostarch.PageRoundUp(oldSize)
	newLen, ok := hostarch.PageRoundUp(newSize)
	if !ok || newLen == 0 || newLen > uint64(mm.layout.MaxAddr) || !oldAddr.IsPageAligned() {
		return remap{}, linuxerr.EINVAL
	}
	old, ok := oldAddr.ToRange(oldLen)
	if !ok {
		// What is at oldAddr decides, if anything is.
		old = hostarch.AddrRange{Start: oldAddr, End: ^hostarch.Addr(hostarch.PageSize - 1)}
	}
	r := remap{old: old, newSize: hostarch.Addr(newLen), MRemapOpts: opts}
	if opts.Move == MRemapMustMove {
		dst, ok := opts.NewAddr.ToRange(newLen)
		if !ok || dst.End > mm.layout.MaxAddr || !opts.NewAddr.IsPageAligned() || dst.Start < oldAddr+hostarch.Addr(oldLen) && oldAddr < dst.End {
			return remap{}, linuxerr.EINVAL
		}
	}
	return r, nil
}

// mremapLocked does what r says and returns where the mapping is then. The caller
// calls finish on the returned operations, of which some may be nil.
//
// Preconditions: mappingMu is locked.
func (mm *MemoryManager) mremapLocked(ctx context.Context, r *remap) (addr hostarch.Addr, ops [2]*operation, err error) {
	root := mm.vmas.Peek()
	if r.movesOnly() {
		parts, stop := partsToMove(root, r.old)
		if len(parts) == 0 {
			return 0, ops, stop
		}
		ops[0] = mm.begin(ctx)
		return r.NewAddr, ops, ops[0].move(r, parts, stop)
	}
	e, ok := root.Find(uint64(r.old.Start))
	if !ok {
		return 0, ops, linuxerr.EFAULT
	}
	v := vmatreeVMA{ar: addrRange(e.Range), vma: e.Value}
	oldSize := r.old.Length()
	switch {
	case oldSize == 0 && v.vma.private, r.newSize < oldSize && r.old.End > mm.layout.MaxAddr:
		return 0, ops, linuxerr.EINVAL
	case oldSize == 0 && r.Move == MRemapMustMove && r.NewAddr <= r.old.Start && r.old.Start-r.NewAddr < r.newSize:
		// What is to be copied would be replaced. (Linux finds that out when it has
		// unmapped it.)
		return 0, ops, linuxerr.EFAULT
	}
	if r.Move != MRemapMustMove && r.newSize <= oldSize {
		// These do not care whether the rest of the range is mapped, or to what.
		if r.newSize == oldSize {
			return r.old.Start, ops, nil
		}
		ops[0] = mm.begin(ctx)
		ops[0].unmap(hostarch.AddrRange{Start: r.old.Start + r.newSize, End: r.old.End})
		return r.old.Start, ops, nil
	}
	if err := r.checkMapping(v); err != nil {
		return 0, ops, err
	}

	if r.Move != MRemapMustMove {
		op := mm.begin(ctx)
		ops[0] = op
		if err := op.checkGrowth(v.vma, uint64(r.newSize-oldSize)); err != nil {
			op.abort()
			return 0, ops, err
		}
		err := op.growInPlace(r, v)
		if err == nil || r.Move == MRemapNoMove {
			return r.old.Start, ops, err
		}
	}
	op := mm.begin(ctx)
	ops[1] = op
	src := hostarch.AddrRange{Start: r.old.Start, End: r.old.Start + min(oldSize, r.newSize)}
	err = op.move(r, []vmatreeVMA{v.part(src)}, nil)
	return op.fresh.ar.Start, ops, err
}

// checkMapping refuses what cannot be done to the mapping v at the start of r.old.
func (r *remap) checkMapping(v vmatreeVMA) error {
	oldSize := r.old.Length()
	// What shrinking cuts off may be anything, too.
	if v.ar.End < r.old.Start+min(oldSize, r.newSize) {
		return linuxerr.EFAULT
	}
	if r.newSize <= oldSize {
		return nil
	}
	if off := v.vma.offsetAt(v.ar.Start, r.old.Start); v.vma.mappable != nil && off+uint64(r.newSize) < off {
		return linuxerr.EINVAL
	}
	if v.vma.fixedSize() {
		return linuxerr.EFAULT
	}
	return nil
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
	// As in Linux (vma_expandable), no distance is kept to a mapping that grows down.
	opts := memmap.MMapOpts{Addr: more.Start, Length: uint64(more.Length()), Fixed: true, NoReplace: true}
	if _, err := op.mm.place(&opts); err != nil {
		op.abort()
		return linuxerr.ENOMEM
	}
	rest := *v.vma
	rest.off = v.vma.offsetAt(v.ar.Start, more.Start)
	err := op.mapVMA(more, &rest, &opts, false, nil)
	if err == nil && rest.mlockMode == memmap.MLockEager {
		op.locked = append(op.locked, more)
	}
	return err
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
