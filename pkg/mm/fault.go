package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// HandleUserFault makes an access of type at to addr possible that faulted in the
// application. The stack pointer sp is not used: mappings that grow down do so wherever
// below them the access is, as in Linux.
//
// Errors: EFAULT if nothing is mapped there, EPERM if the mapping does not permit
// the access, a *memmap.BusError if there is nothing behind the mapping, or what
// else kept the memory from being had.
//
// Preconditions: the caller holds a user reference on mm.
func (mm *MemoryManager) HandleUserFault(ctx context.Context, addr hostarch.Addr, at hostarch.AccessType, sp hostarch.Addr) error {
	page, ok := hostarch.UntaggedUserAddr(addr).RoundDown().ToRange(hostarch.PageSize)
	if !ok {
		return linuxerr.EFAULT
	}
	mm.rememberLimits(ctx)
	mm.faultCount.note()
	// An existing pma would not have faulted, most of the time, so there is no
	// point in looking for one first.
	_, err := mm.access(ctx, page, at)
	return err
}

// access makes accesses of type at to ar possible through the address space. It
// returns how far from ar.Start it got; the error, if any, says why that is short of
// ar.End.
//
// Preconditions: ar is not empty. A thaw may be awaited. The caller holds a user
// reference on mm.
func (mm *MemoryManager) access(ctx context.Context, ar hostarch.AddrRange, at hostarch.AccessType) (hostarch.Addr, error) {
	root, end, err := mm.lockForAccess(ar, at, false)
	for end == ar.Start {
		if !isHole(err) || !mm.grewAt(ctx, ar.Start) {
			return end, err
		}
		root, end, err = mm.lockForAccess(ar, at, false)
	}
	ar.End = end
	var made hostarch.AddrRange
	end, ferr := mm.fill(ctx, root, ar, pmaRequest{at: at, touchesAll: true, made: &made})
	if end == ar.Start {
		mm.activeMu.Unlock()
		return end, ferr
	}
	mm.activeMu.DowngradeLock()
	defer mm.activeMu.RUnlock()
	got := hostarch.AddrRange{Start: ar.Start, End: end}
	around := mm.userRange()
	if made.IsSupersetOf(got) {
		// Pages that were there before are mapped, most likely. Mapping them again would cost their page
		// tables.
		around = made
	}
	if end, merr := mm.mapHost(ctx, got, around, memmap.PlatformEffectDefault); merr != nil {
		return end, merr
	}
	if ferr != nil {
		return end, ferr
	}
	return end, err
}
