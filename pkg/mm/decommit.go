package mm

import (
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Decommit gives up the pages of a range, as madvise(2) does with MADV_DONTNEED:
// when it returns, private memory there reads as zeroes, or as the file it came
// from.
//
// Errors: EINVAL for an unaligned address or a range that wraps around, and at the
// first mapping that is locked, with the pages below it given up; ENOMEM if part of
// the range is not mapped, with the rest given up.
func (mm *MemoryManager) Decommit(addr hostarch.Addr, length uint64) error {
	ar, err := adviceRange(hostarch.UntaggedUserAddr(addr), length)
	if err != nil {
		return err
	}
	if ar.Length() > pieceSize {
		mm.forgetOwn()
	}
	hole := false
	p := mm.decommitPace.resume()
	// Dropped at once, so that the memory file's goroutine, which takes pages out, is not woken up for each step.
	var dropped zapped
	defer func() { mm.dropGivenUp(dropped) }()
	for ar.Length() != 0 {
		next, skipped, err := mm.decommitPieces(ar, &p, &dropped)
		if err != nil {
			return err
		}
		hole = hole || skipped
		if ar.Start = next; ar.Length() != 0 {
			mm.letOthersRun()
		}
	}
	mm.decommitPace.keep(p)
	if hole {
		return linuxerr.ENOMEM
	}
	return nil
}

// dropGivenUp drops what was given up. It is not kept: who asks for memory to be given back gets that.
//
// Preconditions: as for dropFileRefs.
func (mm *MemoryManager) dropGivenUp(dropped zapped) {
	for i := range dropped {
		for j := range dropped[i].Len() {
			e := dropped[i].At(j)
			mm.release(e.Value.file, wholeFileRange(e), mm.onlyOurs(e))
		}
	}
}

// decommitPieces does one bounded step at the start of ar. It returns where to go
// on, and whether there are addresses before that which are not mapped. What it takes out it adds to dropped.
//
// It takes no mappingMu: an operation that is in the middle of something has its
// ranges frozen.
func (mm *MemoryManager) decommitPieces(ar hostarch.AddrRange, p *pace, dropped *zapped) (next hostarch.Addr, skipped bool, err error) {
	mm.activeMu.LockAfterOthers()
	c := mm.vmas.Peek().LowerBound(uint64(ar.Start))
	if !c.Valid() || c.Range().Start >= uint64(ar.End) {
		mm.activeMu.Unlock()
		return ar.End, true, nil
	}
	v := vmatreeVMA{ar: addrRange(c.Range()), vma: c.Value()}
	skipped = ar.Start < v.ar.Start
	part := v.ar.Intersect(ar)
	if f := mm.frozen; f.overlaps(part) {
		thawed := f.whenThawed()
		mm.activeMu.Unlock()
		<-thawed
		return ar.Start, false, nil
	}
	if v.vma.mlockMode != memmap.MLockNone {
		mm.activeMu.Unlock()
		return 0, false, linuxerr.EINVAL
	}
	if v.vma.mappable == nil && mm.mf.HugepagesEnabled() {
		part = mm.decommitHugeEdges(v, part)
	}
	next, zapped := mm.zapAndUnlock(part, p.begin(), func(*pma) bool { return true })
	*dropped = append(*dropped, zapped...)
	p.end(stepTime)
	if next == part.End {
		next = min(v.ar.End, ar.End)
	}
	return next, skipped, nil
}

// decommitHugeEdges empties the huge pages that only the ends of part lie in, in
// place, so that they stay huge. It returns the rest of part; that begins and ends
// with whole huge pages, or with others.
//
// Preconditions: activeMu is locked for writing. v contains part.
func (mm *MemoryManager) decommitHugeEdges(v vmatreeVMA, part hostarch.AddrRange) hostarch.AddrRange {
	if first, ok := part.Start.HugeRoundUp(); ok && first != part.Start {
		edge := hostarch.AddrRange{Start: part.Start, End: min(first, part.End)}
		if mm.decommitInPlace(v, edge) {
			part.Start = edge.End
		}
	}
	if last := part.End.HugeRoundDown(); part.Length() != 0 && last != part.End {
		edge := hostarch.AddrRange{Start: max(last, part.Start), End: part.End}
		if mm.decommitInPlace(v, edge) {
			part.End = edge.Start
		}
	}
	return part
}

// decommitInPlace empties the pages of edge, which lies within one huge page, if
// they are part of one that is v's alone. Otherwise it returns false.
//
// Preconditions: activeMu is locked for writing. v contains edge.
func (mm *MemoryManager) decommitInPlace(v vmatreeVMA, edge hostarch.AddrRange) bool {
	e, ok := mm.pmas.Find(uint64(edge.Start))
	if !ok || !e.Value.huge || hostarch.Addr(e.End) < edge.End || mm.mustCopy(v, &e) {
		return false
	}
	fr := e.Value.fileRange(e.Start, edge)
	if !mm.mf.HasUniqueRef(fr) {
		return false // pinned pages keep what is in them
	}
	mm.mf.Decommit(fr)
	return true
}
