package mm

import (
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Invalidate implements memmap.MappingSpace.Invalidate: when it returns, no thread
// can reach what Mappables had translated for ar before. With
// opts.InvalidatePrivate, private copies are gone as well.
//
// Callers may hold the locks of Mappables. It waits for host work only.
func (mm *MemoryManager) Invalidate(ar hostarch.AddrRange, opts memmap.InvalidateOpts) {
	mm.invalidate(ar, opts, false)
}

// invalidate is Invalidate. fresh is set if the caller is the Mappable of a
// mapping that is being installed, rather than of one that it replaces.
func (mm *MemoryManager) invalidate(ar hostarch.AddrRange, opts memmap.InvalidateOpts, fresh bool) {
	matches := func(p *pma) bool { return !p.private || opts.InvalidatePrivate }
	sharedOnly := func(p *pma) bool { return !p.private }
	noted := false
	for ar.Length() != 0 {
		mm.activeMu.LockAfterOthers()
		if mm.capture != nil {
			*mm.capture = append(*mm.capture, invalidation{ar, opts})
			mm.activeMu.Unlock()
			return
		}
		f := mm.frozen
		if f != nil && f.kept != nil && !fresh && !noted {
			*f.kept = append(*f.kept, invalidation{ar, opts})
			noted = true
		}
		part, fz := f.split(ar)
		if fz != nil {
			if at := fz.hostWork(); at != nil {
				done := at.whenHostDone()
				mm.activeMu.Unlock()
				<-done
				continue
			}
		}
		match := matches
		if fz != nil && fz.register && !fresh {
			// Private pages that are here already belong to the new mapping.
			match = sharedOnly
		}
		target, shift := part, hostarch.Addr(0)
		if m := f.moveTo(part); m != nil {
			target, shift = m.sourceOf(part)
		}
		next, zapped := mm.zapAndUnlock(target, 1, match)
		zapped.drop()
		if next == target.End {
			ar.Start = part.End
		} else {
			ar.Start = next + shift
		}
	}
}

// split returns the part at the start of ar that lies within one range of f, and
// that range; or that lies outside all of them, and nil. f may be nil.
func (f *freeze) split(ar hostarch.AddrRange) (hostarch.AddrRange, *frozenRange) {
	if f == nil {
		return ar, nil
	}
	for _, fz := range f.ranges {
		if fz.Contains(ar.Start) {
			ar.End = min(ar.End, fz.End)
			return ar, fz
		}
	}
	for _, fz := range f.ranges {
		if fz.Start > ar.Start {
			ar.End = min(ar.End, fz.Start)
		}
	}
	return ar, nil
}

// moveTo returns the move that has ar, which split returned, as part of its
// destination, or nil. f may be nil.
func (f *freeze) moveTo(ar hostarch.AddrRange) *pmaMove {
	if f == nil {
		return nil
	}
	for i := range f.moves {
		if f.moves[i].dst.IsSupersetOf(ar) {
			return &f.moves[i]
		}
	}
	return nil
}

// sourceOf returns where the pages are that are going to be at ar, and how far
// they move. It is empty if that part of the destination will be new.
//
// Preconditions: m.dst contains ar.
func (m *pmaMove) sourceOf(ar hostarch.AddrRange) (hostarch.AddrRange, hostarch.Addr) {
	shift := m.dst.Start - m.src.Start // modulo 2^64
	if ar.Start-m.dst.Start >= m.src.Length() {
		return hostarch.AddrRange{}, shift
	}
	return hostarch.AddrRange{Start: ar.Start - shift, End: min(ar.End-shift, m.src.End)}, shift
}

// zapped are pmas that zapAndUnlock took out.
type zapped []takenPMAs

// drop releases their pages.
//
// Preconditions: as for dropFileRefs.
func (z zapped) drop() {
	for i := range z {
		dropFileRefs(&z[i])
	}
}

// zapAndUnlock takes out the pmas in ar for which match returns true, unmaps them from
// the host, at most that many pieces of pages, and unlocks activeMu. It returns where to go on, ar.End if
// it is done. While the host unmaps, activeMu is locked for reading only: who copies elsewhere need not wait, and there nobody finds
// pages, or can make or map some.
//
// Preconditions: activeMu is locked for writing. The caller drops what is returned.
func (mm *MemoryManager) zapAndUnlock(ar hostarch.AddrRange, pieces int, match func(*pma) bool) (hostarch.Addr, zapped) {
	runs, next := matchingRuns(mm.pmas, ar, pieces, match)
	if len(runs) == 0 {
		mm.activeMu.Unlock()
		return ar.End, nil
	}
	var z zapped
	for _, run := range runs {
		z = append(z, mm.takePMAs(run))
	}
	hull := hostarch.AddrRange{Start: runs[0].Start, End: runs[len(runs)-1].End}
	hole := mm.hostHole(hull)
	mm.activeMu.DowngradeLock()
	mm.unmapHost(hole)
	mm.activeMu.RUnlock()
	return next, z
}

// matchingRuns returns the ranges in ar of pmas for which match returns true, up to
// that many pieces, and where to go on.
func matchingRuns(pmas *pmaSet, ar hostarch.AddrRange, pieces int, match func(*pma) bool) (runs []hostarch.AddrRange, next hostarch.Addr) {
	room := hostarch.Addr(pieces) * pieceSize
	for r, p := range pmas.Within(treeRange(ar)) {
		if !match(p) {
			continue
		}
		run := addrRange(r).Intersect(ar)
		if room == 0 {
			return runs, run.Start
		}
		whole := run.End
		run.End = min(run.End, run.Start+room)
		room -= run.Length()
		if n := len(runs); n != 0 && runs[n-1].End == run.Start {
			runs[n-1].End = run.End
		} else {
			runs = append(runs, run)
		}
		if run.End < whole {
			return runs, run.End
		}
	}
	return runs, ar.End
}
