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
// When it returns, no thread has more than the new permissions. If it fails at some
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

	// The tree first: a fault that comes between the pieces gets no more than the
	// new permissions allow.
	mm.activeMu.Lock()
	op.publish()
	ar.End = done
	if ar.Length() <= pieceSize {
		op.protectPieces(ar, 1, true) // the least that a step does
		op.unlockAndMap()
	} else {
		op.protectMuch(ar)
	}
	mm.validateIfEnabled()
	return err
}

// protectMuch does step by step what protect has to do about pages and the host, and unlocks activeMu.
//
// Preconditions: mappingMu is locked; activeMu is locked for writing.
func (op *operation) protectMuch(ar hostarch.AddrRange) {
	mm := op.mm
	p := mm.protectPace.resume()
	for all := ar; ; mm.activeMu.LockAfterOthers() {
		ar.Start = op.protectPieces(ar, p.begin(), ar == all)
		p.end()
		op.unlockAndMap()
		if ar.Length() == 0 {
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
	if l := op.mm.limits.Load(); l != nil && n.isData() && !v.isData() {
		if mayExpand(l, op.count, &n, r.Len()) != nil && mayExpand(l, op.count, v, r.Len()) == nil {
			return n, linuxerr.ENOMEM
		}
	}
	return n, nil
}

// protectPieces gives pmas at the start of ar, at most so many pieces, the permissions of their vmas, and
// removes host mappings that allow more; or, if that is all of what the operation protects, has unlockAndMap map what is little anew. It returns where to go on.
//
// Preconditions: mappingMu is locked; activeMu is locked for writing.
func (op *operation) protectPieces(ar hostarch.AddrRange, pieces int, all bool) hostarch.Addr {
	mm := op.mm
	root := mm.vmas.Peek()
	end := mm.firstToProtect(root, ar, pieces)
	all = all && end == ar.End
	ar.End = end
	var few [mostRemapped + 1]pmaEntry
	changed := few[:0]
	var stale hostarch.AddrRange
	for r, v := range root.Within(treeRange(ar)) {
		part := r.Intersect(treeRange(ar))
		mm.pmas.SplitAt(part.Start)
		mm.pmas.SplitAt(part.End)
		for pr, p := range mm.pmas.Within(part) {
			had := p.effectivePerms
			p.limitTo(v)
			if p.effectivePerms == had {
				continue
			}
			if len(changed) <= mostRemapped {
				changed = append(changed, pmaEntry{Range: pr, Value: p})
			}
			if p.effectivePerms.SupersetOf(had) {
				continue
			}
			if stale.Length() == 0 {
				stale.Start = hostarch.Addr(pr.Start)
			}
			stale.End = hostarch.Addr(pr.End)
		}
	}
	// Little is about to be used. Mapping takes as long as unmapping, and saves a fault.
	little := all && len(changed) != 0 && changed[len(changed)-1].End-changed[0].Start <= pieceSize
	if !little || !mm.prepareRemap(&op.maps, changed) {
		mm.unmapHost(stale)
	}
	mm.pmas.MergeWithin(treeRange(ar))
	return ar.End
}

// mostPMAs is how many pmas a step looks at: a thousand take some hundred microseconds.
const mostPMAs = 1024

// firstToProtect returns where the part at the start of ar ends that one step protects. What counts
// are pages that have to be unmapped from the host, and those between them, which are unmapped by the same call. Others cost
// nothing but the looking.
//
// Preconditions: activeMu is locked.
func (mm *MemoryManager) firstToProtect(root vmaSnapshot, ar hostarch.AddrRange, pieces int) hostarch.Addr {
	room, pmas := uint64(pieces)*pieceSize, mostPMAs
	if uint64(ar.Length()) <= room && mm.pmas.Len() <= pmas {
		return ar.End
	}
	some, between := false, uint64(0) // something has to be unmapped, and so much came after the last of it
	for r, v := range root.Within(treeRange(ar)) {
		for pr, p := range mm.pmas.Within(r.Intersect(treeRange(ar))) {
			part := pr.Intersect(r).Intersect(treeRange(ar))
			if room == 0 || pmas == 0 {
				return hostarch.Addr(part.Start)
			}
			pmas--
			if p.allowed(v).SupersetOf(p.effectivePerms) {
				if some {
					between += part.Len()
				}
				continue
			}
			if between >= room {
				return hostarch.Addr(part.Start)
			}
			room -= between
			some, between = true, 0
			if part.Len() > room {
				return hostarch.Addr(part.Start + room)
			}
			room -= part.Len()
		}
	}
	return ar.End
}
