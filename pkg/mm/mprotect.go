package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"

	"sentrymm/pkg/vmatree"
)

// MProtect sets the permissions of a range, as mprotect(2) does. With growsDown
// (PROT_GROWSDOWN) the range begins with the first mapping in it, which has to be
// one that grows down.
//
// When it returns, no thread has more than the new permissions; until then others may have the old ones. If it fails at some
// address, the part below that address has them.
//
// Errors: EINVAL for an unaligned address, or growsDown on a mapping that does not;
// EACCES for permissions that the mapping cannot have; ENOMEM where nothing is
// mapped, or if RLIMIT_DATA forbids that much writable memory.
func (mm *MemoryManager) MProtect(addr hostarch.Addr, length uint64, realPerms hostarch.AccessType, growsDown bool) error {
	addr = hostarch.UntaggedUserAddr(addr)
	if !addr.IsPageAligned() {
		return linuxerr.EINVAL
	}
	if length == 0 {
		return nil
	}
	rounded, ok := hostarch.PageRoundUp(length)
	if !ok {
		return linuxerr.ENOMEM
	}
	ar, ok := addr.ToRange(rounded)
	if !ok {
		return linuxerr.ENOMEM
	}
	mm.mappingMu.Lock()
	op := mm.begin(context.Background())
	err := op.protect(ar, realPerms, growsDown)
	mm.mappingMu.Unlock()
	op.finish()
	return err
}

// protect carries MProtect out.
//
// Preconditions: mappingMu is locked. ar is page-aligned and not empty. The caller
// calls finish.
func (op *operation) protect(ar hostarch.AddrRange, realPerms hostarch.AccessType, growsDown bool) error {
	mm := op.mm
	if growsDown {
		c := op.before.LowerBound(uint64(ar.Start))
		switch {
		case !c.Valid(), hostarch.Addr(c.Range().Start) >= ar.End:
			return linuxerr.ENOMEM
		case !c.Value().growsDown:
			return linuxerr.EINVAL
		}
		ar.Start = hostarch.Addr(c.Range().Start)
	}
	done := ar.Start
	hole, err := op.alter(ar, false, func(r vmatree.Range, v *vma) (vma, error) {
		n, err := op.protected(r, v, realPerms)
		if err == nil {
			done = hostarch.Addr(r.End)
			// Copied now, so that no write has to wait for it later (Linux:
			// mprotect_fixup).
			if v.mlockMode == memmap.MLockEager && v.private && realPerms.Write && !v.realPerms.Write {
				op.locked = append(op.locked, addrRange(r))
			}
		}
		return n, err
	})
	if hole && err == nil {
		err = linuxerr.ENOMEM
	}

	// The tree first: a fault that comes meanwhile gets no more than the new permissions allow.
	mm.activeMu.Lock()
	op.publish()
	ar.End = done
	op.protectPages(ar)
	mm.validateIfEnabled()
	return err
}

// protectPages does what protect has to do about pages and the host, and unlocks activeMu. While the host unmaps what it may have mapped with more permissions than
// there are now, no lock is held that a fault waits for: what is mapped there meanwhile has the new ones.
//
// Preconditions: mappingMu is locked; activeMu is locked for writing.
func (op *operation) protectPages(ar hostarch.AddrRange) {
	mm := op.mm
	p := mm.protectPace.resume()
	for ; ; mm.activeMu.LockAfterOthers() {
		next, stale := op.protectPMAs(ar)
		op.unlockAndMap()
		var cut pieceCutter
		for _, r := range stale {
			cut.add(r)
		}
		mm.unmapInSteps(cut.pieces, &p, protectStepTime)
		if ar.Start = next; ar.Length() == 0 {
			break
		}
		mm.letOthersRun()
	}
	mm.protectPace.keep(p)
}

// protected returns v, of which r is to change, with permissions perms.
//
// Preconditions: mappingMu is locked.
func (op *operation) protected(r vmatree.Range, v *vma, perms hostarch.AccessType) (vma, error) {
	n := *v
	n.realPerms, n.effectivePerms = perms, perms.Effective()
	if !n.maxPerms.SupersetOf(n.effectivePerms) {
		return n, linuxerr.EACCES
	}
	// Memory that becomes private data counts as if it grew by that much (Linux:
	// mprotect_fixup).
	if l := op.mm.limits.Load(); l != nil && n.isData() && !v.isData() && beyondData(l, op.count, r.Len()) && !beyondAS(l, op.count, r.Len()) {
		return n, linuxerr.ENOMEM
	}
	return n, nil
}

// mostPMAs is how many pmas are looked at with activeMu locked: a thousand take some hundred microseconds.
const mostPMAs = 1024

// protectPMAs gives pmas at the start of ar the permissions of their vmas. It returns where to go on, and in address order what the host may have mapped with more; if the rest of
// what the operation protects is little, unlockAndMap is to map it anew instead.
//
// It goes on to pages that have to be unmapped over holes, which cost nothing, and over less than a piece of others, which are unmapped with them.
//
// Preconditions: mappingMu is locked; activeMu is locked for writing.
func (op *operation) protectPMAs(ar hostarch.AddrRange) (next hostarch.Addr, stale []hostarch.AddrRange) {
	mm := op.mm
	next = ar.End
	if c := mm.pmas.LowerBound(uint64(ar.Start)); !c.Valid() || hostarch.Addr(c.Range().Start) >= ar.End {
		return next, nil // nothing has been touched, as in a heap that grows
	}
	var few [mostRemapped + 1]pmaEntry
	changed := few[:0]
	looked, others := 0, false // others come after the last of stale
pmas:
	for r, v := range mm.vmas.Peek().Within(treeRange(ar)) {
		part := r.Intersect(treeRange(ar))
		mm.pmas.SplitAt(part.Start)
		mm.pmas.SplitAt(part.End)
		for pr, p := range mm.pmas.Within(part) {
			at := addrRange(pr)
			had := p.effectivePerms
			tightens := !p.allowed(v).SupersetOf(had)
			n := len(stale)
			if looked == mostPMAs || tightens && others && at.Start-stale[n-1].End >= pieceSize {
				next = at.Start
				break pmas
			}
			looked++
			p.limitTo(v)
			if p.effectivePerms != had && len(changed) <= mostRemapped {
				changed = append(changed, pmaEntry{Range: pr, Value: p})
			}
			switch {
			case !tightens:
			case n != 0 && (others || stale[n-1].End == at.Start):
				stale[n-1].End = at.End
			default:
				stale = append(stale, at)
			}
			others = !tightens && len(stale) != 0
		}
	}
	// Little is about to be used. Mapping takes as long as unmapping, and saves a fault.
	little := next == ar.End && len(changed) != 0 && changed[len(changed)-1].End-changed[0].Start <= pieceSize
	if little && mm.prepareRemap(&op.maps, changed) {
		stale = nil
	}
	ar.End = next
	mm.pmas.MergeWithin(treeRange(ar))
	return next, stale
}
