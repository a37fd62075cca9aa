package mm

import (
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// freeze keeps others out of the ranges that an operation has published anew but
// not finished. Who waits for what:
//
//	pending   fault, populate, I/O, Pin   Invalidate
//	host      wait for the thaw           waits for the host
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

	// first and firstRange are room for the ranges of most operations.
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

	// host is set while the host may have other pages mapped here than there are, old ones or none. The operation sees to
	// that, and holds no lock meanwhile that a fault elsewhere would have to wait for.
	host bool

	// hostDone is closed when host is no longer set. It is nil as long as nobody waits; see whenHostDone.
	hostDone chan struct{}

	// movedFrom, if not nil, is where mremap moved the pages from. Until the host has none of them mapped there, they must
	// not be given up here either.
	movedFrom *frozenRange

	// filled is set if there are pages of the new mapping here.
	filled bool

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

// overlapsEmpty is overlaps, but for ranges that have the pages of the new mapping already.
func (f *freeze) overlapsEmpty(ar hostarch.AddrRange) bool {
	if f == nil {
		return false
	}
	for _, fz := range f.ranges {
		if !fz.filled && fz.Overlaps(ar) {
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
		case fz.hostWork() == nil:
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
		f = &op.freeze
		*f = freeze{op: op}
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

// hostWork returns the range in which the host has work to do before pages of fz may be given up: fz, or where they came
// from. It returns nil if there is none.
//
// Preconditions: activeMu is locked.
func (fz *frozenRange) hostWork() *frozenRange {
	switch {
	case fz.host:
		return fz
	case fz.movedFrom != nil && fz.movedFrom.host:
		return fz.movedFrom
	}
	return nil
}

// whenHostDone returns a channel that is closed when the host has done its work in fz.
//
// Preconditions: activeMu is locked for writing, and host is set.
func (fz *frozenRange) whenHostDone() <-chan struct{} {
	if fz.hostDone == nil {
		fz.hostDone = make(chan struct{})
	}
	return fz.hostDone
}

// endHost marks that the host has done its work, and wakes who waits for that.
//
// Preconditions: activeMu is locked for writing.
func (fz *frozenRange) endHost() {
	fz.host = false
	if fz.hostDone != nil {
		close(fz.hostDone)
		fz.hostDone = nil
	}
}

// endHost marks that the host has done its work in all frozen ranges, if there are some.
//
// Preconditions: mappingMu is locked. activeMu is not.
func (mm *MemoryManager) endHost() {
	mm.activeMu.Lock()
	defer mm.activeMu.Unlock()
	if f := mm.frozen; f != nil {
		f.endHost()
	}
}

// endHost is MemoryManager.endHost.
//
// Preconditions: activeMu is locked for writing.
func (f *freeze) endHost() {
	for _, fz := range f.ranges {
		fz.endHost()
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
		f.endHost()
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
