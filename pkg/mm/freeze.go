package mm

import (
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// freeze keeps others out of the ranges that an operation has published anew but
// not finished. Who waits for what:
//
//	pending   fault, populate, I/O, Pin   Invalidate
//	host      wait for the thaw           waits for the host, then finds nothing
//	register  wait for the thaw           drops shared pmas, spares private ones
//
// Writers wait for both, at mappingMu. Only the operation puts pmas into its
// ranges. Everything in a freeze is guarded by activeMu, except that the channels
// may be waited for without.
type freeze struct {
	op     *operation
	ranges []*frozenRange

	// thawed is closed by the thaw. It is nil as long as nobody waits; see whenThawed.
	thawed chan struct{}

	// first and firstRange are room for the ranges of most operations, so that a freeze is one allocation.
	first      [2]frozenRange
	firstRange [2]*frozenRange

	// moves say that the pmas of src will be moved to dst, which the Mappable knows
	// already: an invalidation of dst means them.
	moves []pmaMove

	// kept, if not nil, collects invalidations that may be meant for pmas which
	// were taken out, but may yet come back.
	kept *[]invalidation
}

// frozenRange is a range and what is pending there.
type frozenRange struct {
	hostarch.AddrRange

	// hostDone is closed when the host's mappings of the old pages are gone; it
	// is nil if none have to go.
	hostDone chan struct{}

	// movedTo, if not nil, is where mremap moved the pages to that the host still
	// has mapped here. Until they are not, they must not be given up there either.
	movedTo *frozenRange

	// register is set while Mappables of old vmas may still call Invalidate.
	register bool
}

// pmaMove is what mremap is about to do.
type pmaMove struct {
	src, dst hostarch.AddrRange
}

// invalidation is a call to MemoryManager.Invalidate.
type invalidation struct {
	ar   hostarch.AddrRange
	opts memmap.InvalidateOpts
}

// overlaps returns whether a range of f has addresses in common with ar. f may
// be nil.
func (f *freeze) overlaps(ar hostarch.AddrRange) bool {
	if f == nil {
		return false
	}
	for _, fz := range f.ranges {
		if fz.Overlaps(ar) {
			return true
		}
	}
	return false
}

// clip returns the part of hole around addr that is not frozen.
//
// Preconditions: hole contains addr, and addr is not frozen.
func (f *freeze) clip(hole hostarch.AddrRange, addr hostarch.Addr) hostarch.AddrRange {
	for _, fz := range f.ranges {
		switch {
		case fz.Start > addr:
			hole.End = min(hole.End, fz.Start)
		case fz.End <= addr:
			hole.Start = max(hole.Start, fz.End)
		}
	}
	return hole
}

// clipPending returns the part of hole around inside that has none of the ranges which
// the host still has to unmap, but for those that inside is part of. f may be nil.
//
// Preconditions: hole contains inside.
func (f *freeze) clipPending(hole, inside hostarch.AddrRange) hostarch.AddrRange {
	if f == nil {
		return hole
	}
	for _, fz := range f.ranges {
		switch {
		case fz.hostDone == nil:
		case fz.Start >= inside.End:
			hole.End = min(hole.End, fz.Start)
		case fz.End <= inside.Start:
			hole.Start = max(hole.Start, fz.End)
		}
	}
	return hole
}

// freezeRange adds ar to the ranges that op keeps frozen.
//
// Preconditions: mappingMu is locked; activeMu is locked for writing.
func (mm *MemoryManager) freezeRange(op *operation, ar hostarch.AddrRange) *frozenRange {
	f := mm.frozen
	if f == nil {
		f = &freeze{op: op}
		f.ranges = f.firstRange[:0]
		mm.frozen = f
	}
	var fz *frozenRange
	if n := len(f.ranges); n < len(f.first) {
		fz = &f.first[n]
	} else {
		fz = new(frozenRange)
	}
	fz.AddrRange = ar
	f.ranges = append(f.ranges, fz)
	return fz
}

// whenThawed returns a channel that is closed when f is thawed.
//
// Preconditions: activeMu is locked for writing, and f is mm.frozen.
func (f *freeze) whenThawed() <-chan struct{} {
	if f.thawed == nil {
		f.thawed = make(chan struct{})
	}
	return f.thawed
}

// hostPending marks that host mappings of fz's old pages have to go.
//
// Preconditions: activeMu is locked for writing.
func (fz *frozenRange) hostPending() {
	fz.hostDone = make(chan struct{})
	if fz.movedTo != nil {
		fz.movedTo.hostDone = fz.hostDone
	}
}

// hostGone marks that they have gone, and wakes who waits for that.
//
// Preconditions: activeMu is locked for writing.
func (fz *frozenRange) hostGone() {
	if fz.hostDone != nil {
		close(fz.hostDone)
		fz.hostDone = nil
		if fz.movedTo != nil {
			fz.movedTo.hostDone = nil
		}
	}
}

// thaw ends the freeze of op, if it has one, and wakes who waits.
//
// Preconditions: mappingMu is locked. activeMu is not.
func (mm *MemoryManager) thaw() {
	mm.activeMu.Lock()
	defer mm.activeMu.Unlock()
	if f := mm.frozen; f != nil {
		mm.frozen = nil
		if f.thawed != nil {
			close(f.thawed)
		}
	}
}

// lockForAccess locks activeMu for writing, at a moment when vmas of the
// returned tree permit accesses of type at to a first part of ar that is not
// frozen. It returns where that part ends; the error, if any, says why it ends
// there. If there is no such part, activeMu is not locked, the returned end is
// ar.Start, and there is no tree.
//
// A missing vma or permission fails at once, frozen or not.
//
// Preconditions: ar is not empty. A thaw may be awaited, see the lock order.
func (mm *MemoryManager) lockForAccess(ar hostarch.AddrRange, at hostarch.AccessType, ignorePermissions bool) (root vmaSnapshot, end hostarch.Addr, err error) {
	for {
		mm.activeMu.Lock()
		root = mm.vmas.Peek()
		end, err = reach(root, ar, at, ignorePermissions)
		if end <= ar.Start {
			mm.activeMu.Unlock()
			return vmaSnapshot{}, ar.Start, err
		}
		f := mm.frozen
		if !f.overlaps(hostarch.AddrRange{Start: ar.Start, End: end}) {
			return root, end, err
		}
		thawed := f.whenThawed()
		mm.activeMu.Unlock()
		<-thawed
	}
}
