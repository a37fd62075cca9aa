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
	mm.faults.note()
	anyFaults.note()
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
	a := mm.idleAccess.Swap(nil)
	if a == nil {
		a = new(accessing)
	}
	a.times.begin()
	end, err := mm.accessOnce(ctx, ar, at, a)
	for err == errCopyAside {
		mm.copyAside(ctx, &a.memory)
		end, err = mm.accessOnce(ctx, ar, at, a)
	}
	mm.drop(a.memory)
	a.times.end(ctx, ar.Start)
	*a = accessing{}
	mm.idleAccess.Store(a)
	return end, err
}

// accessing is what access has fill use and set. Its memory serves the next access.
type accessing struct {
	times   faultTimes
	memory  committed
	made    hostarch.AddrRange
	mapping mapping
	old     leftover
}

// accessOnce is access, but for copies to be made without locks, see errCopyAside.
//
// Preconditions: as for access.
func (mm *MemoryManager) accessOnce(ctx context.Context, ar hostarch.AddrRange, at hostarch.AccessType, a *accessing) (hostarch.Addr, error) {
	root, end, err := mm.lockForAccess(ar, at, false)
	for end == ar.Start {
		if !isHole(err) || !mm.grewAt(ctx, ar.Start) {
			return end, err
		}
		root, end, err = mm.lockForAccess(ar, at, false)
	}
	ar.End = end
	defer a.old.drop()
	a.made = hostarch.AddrRange{}
	end, ferr := mm.fill(ctx, root, ar, pmaRequest{at: at, touchesAll: true, made: &a.made, old: &a.old, memory: &a.memory, copyAside: true})
	mm.hot.faulted(ar.Start)
	if end == ar.Start || ferr == errCopyAside {
		a.old.settle(mm)
		mm.activeMu.Unlock()
		return end, ferr
	}
	got := hostarch.AddrRange{Start: ar.Start, End: end}
	around := mm.userRange()
	if a.made.IsSupersetOf(got) {
		// Pages that were there before are mapped, most likely. Mapping them again would cost their page
		// tables.
		around = a.made
	}
	var merr error
	a.times.askHost()
	if a.old.stale.Length() != 0 {
		end, merr = mm.mapOverStale(ctx, got, around, &a.old)
		mm.activeMu.Unlock()
	} else {
		begun := stepClock()
		end, merr = mm.mapHostAndUnlock(ctx, got, around, memmap.PlatformEffectDefault, &a.mapping)
		mm.populated.noteFault(stepClock().Sub(begun))
	}
	a.times.hostDone()
	if merr != nil {
		return end, merr
	}
	if ferr != nil {
		return end, ferr
	}
	return end, err
}

// mapOverStale is mapHost where something stale may be mapped. What is mapped over it spares a call to unmap it.
//
// Preconditions: as for mapHost. activeMu is locked for writing. The vmas permit accesses to all of got.
func (mm *MemoryManager) mapOverStale(ctx context.Context, got, around hostarch.AddrRange, old *leftover) (hostarch.Addr, error) {
	all := hostarch.AddrRange{Start: min(got.Start, old.stale.Start), End: max(got.End, old.stale.End)}
	if !around.IsSupersetOf(all) || !mm.mapsAll(all) {
		old.settle(mm)
		return mm.mapHost(ctx, got, around, memmap.PlatformEffectDefault)
	}
	end, err := mm.mapHost(ctx, all, around, memmap.PlatformEffectDefault)
	if err != nil {
		old.settle(mm)
	}
	return min(max(end, got.Start), got.End), err
}

// mapsAll returns whether there are pmas that can be mapped for all of ar.
//
// Preconditions: activeMu is locked.
func (mm *MemoryManager) mapsAll(ar hostarch.AddrRange) bool {
	at := uint64(ar.Start)
	for r, p := range mm.pmas.Within(treeRange(ar)) {
		if r.Start > at || !p.effectivePerms.Any() {
			return false
		}
		at = r.End
	}
	return at >= uint64(ar.End)
}
