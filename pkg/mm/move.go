package mm

import (
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// mremap moves one mapping, or several with the holes between them, in one operation
// with one publish:
//
//	source       |--A--|   |-B-|  |xx cut off xx|
//	destination  |xxaxx|.h.|xbx|                    x: goes; h, below a hole: stays
//
//	for each     gather and evacuate a; register A there
//	install      publish, and move the pages
//	complete     unmap and deregister the sources, thaw
//
// If there is little to move and to unmap, and nobody to be told, install does all of it, and nothing is frozen.
//
// Linux moves mapping by mapping, and everybody can watch. If one fails, those before
// it have moved; so a, b, ... are given up one by one, each when its turn has come.

// relocation is the move of one vma, or of a part of one, within an operation.
type relocation struct {
	// src is where the pages are, empty for a copy; dst, no shorter, where they go.
	src, dst hostarch.AddrRange

	// vma is what dst gets.
	vma *vma

	// over is what was at dst, from what is taken from src, nil if that is empty.
	over, from *gathered

	// source is the frozen src, nil if that is empty, or if the move happens at once.
	source *frozenRange

	// pages are those that moved.
	pages takenPMAs

	// gone is what has to go first, all but from; atOnce is set if it goes in the same moment.
	gone   []*gathered
	atOnce bool
}

// part returns what v is at ar, which it contains.
func (v vmatreeVMA) part(ar hostarch.AddrRange) vmatreeVMA {
	p := *v.vma
	p.off = v.vma.offsetAt(v.ar.Start, ar.Start)
	return vmatreeVMA{ar: ar, vma: &p}
}

// partsToMove returns the parts of vmas in old that move together. If these are not
// all, the error says why (Linux: remap_move).
func partsToMove(root vmaSnapshot, old hostarch.AddrRange) ([]vmatreeVMA, error) {
	var parts []vmatreeVMA
	for r, v := range root.Within(treeRange(old)) {
		whole := vmatreeVMA{ar: addrRange(r), vma: v}
		if len(parts) == 0 && whole.ar.Start > old.Start {
			return nil, linuxerr.EFAULT
		}
		if !v.movesInCompany() && (len(parts) != 0 || whole.ar.End < old.End) {
			return parts, linuxerr.EFAULT
		}
		parts = append(parts, whole.part(whole.ar.Intersect(old)))
	}
	if len(parts) == 0 {
		return nil, linuxerr.EFAULT
	}
	return parts, nil
}

// movesInCompany returns whether v may be one of several mappings that move together.
// Linux (vma_multi_allowed) excludes files that choose addresses themselves. Of
// those that the sentry has, they are segments of SysV shared memory, and /dev/zero,
// which is all that gives anonymous memory an identity.
func (v *vma) movesInCompany() bool {
	if v.mappable == nil {
		return v.id == nil
	}
	return !v.countsAttachments()
}

// move moves or, if r.old is empty, copies the parts. The pages go along, and no page
// is ever at neither place. stop is why there are no more parts, and what move returns
// if nothing else goes wrong.
//
// Preconditions: mappingMu is locked. There is a part, and no more than one unless
// r.movesOnly. The caller calls finish.
func (op *operation) move(r *remap, parts []vmatreeVMA, stop error) error {
	dst, err := op.destination(r)
	if err != nil {
		op.abort()
		return err
	}
	op.fresh.ar = dst
	op.moves = op.firstMove[:0]
	for _, p := range parts {
		m := relocation{src: p.ar, dst: dst, vma: p.vma}
		if r.movesOnly() {
			m.dst.Start += p.ar.Start - r.old.Start
			m.dst.End = m.dst.Start + p.ar.Length()
		}
		op.makeRoom(r, &m)
		// The vma at the source is still counted, so only what it grows by is new.
		// It grows only if it is alone, so nothing has happened yet.
		if err := op.checkGrowth(m.vma, uint64(m.dst.Length()-m.src.Length())); err != nil {
			op.abort()
			return err
		}
		if m.atOnce = len(parts) == 1 && m.isSmall(); !m.atOnce {
			// From here on the old mappings of these ranges are lost.
			op.evacuate(&m)
		}
		if err := op.copyMapping(&m); err != nil {
			stop = err
			break
		}
		op.moves = append(op.moves, m)
		if m.vma.mlockMode == memmap.MLockEager && m.vma.effectivePerms.Any() {
			op.locked = append(op.locked, m.dst)
		}
	}
	op.installMoves()
	op.unmapSources()
	for i := range op.moves {
		if from := op.moves[i].from; from != nil {
			op.deregister(from)
		}
	}
	op.mm.thaw()
	op.mm.validateIfEnabled()
	return stop
}

// destination chooses where r goes.
//
// Preconditions: mappingMu is locked.
func (op *operation) destination(r *remap) (hostarch.AddrRange, error) {
	opts := memmap.MMapOpts{Length: uint64(r.newSize)}
	if r.Move == MRemapMustMove {
		opts.Addr, opts.Fixed, opts.Unmap = r.NewAddr, true, true
	}
	return op.mm.place(&opts)
}

// makeRoom gathers what is at m's destination, and what shrinking cuts off.
//
// Preconditions: mappingMu is locked.
func (op *operation) makeRoom(r *remap, m *relocation) {
	before := len(op.gone)
	m.over = op.gather(m.dst)
	if r.old.Length() > r.newSize {
		op.gather(hostarch.AddrRange{Start: m.src.End, End: r.old.End})
	}
	m.gone = op.gone[before:len(op.gone):len(op.gone)]
}

// isSmall returns whether one step can move and unmap all that m moves and makes room in, and no Mappable has to be
// told.
func (m *relocation) isSmall() bool {
	n := uint64(m.src.Length())
	for _, g := range m.gone {
		if g.hasMappables() {
			return false
		}
		n += g.size.as
	}
	return m.vma.mappable == nil && n <= pieceSize
}

// evacuate freezes m's source and destination and removes what the gathered ranges
// hold, for good: pmas, host mappings, registrations. It announces the move.
//
// The registrations have to be gone before CopyMapping adds the new one: it may
// have the same key. Nothing is published yet.
//
// Preconditions: mappingMu is locked; activeMu is not.
func (op *operation) evacuate(m *relocation) {
	mm := op.mm
	mm.activeMu.Lock()
	for _, g := range m.gone {
		g.fz = mm.freezeRange(op, g.ar)
		g.fz.register = true
		if g.pmas = mm.takePMAs(g.ar); g.pmas.Len() != 0 {
			g.fz.host = true
		}
	}
	if m.src.Length() != 0 {
		m.source = mm.freezeRange(op, m.src)
	}
	mm.activeMu.Unlock()
	// All host work comes before all deregistering: a Mappable that waits, in
	// Invalidate and with its locks held, for the former must not keep the latter
	// waiting for it.
	for _, g := range m.gone {
		op.unmapPieces(g)
	}
	mm.endHost()
	for _, g := range m.gone {
		op.deregister(g)
	}
	mm.activeMu.Lock()
	for _, g := range m.gone {
		g.fz.register = false
	}
	if m.src.Length() != 0 {
		mm.frozen.moves = append(mm.frozen.moves, pmaMove{src: m.src, dst: m.dst})
	}
	mm.activeMu.Unlock()
}

// copyMapping makes m's destination known to the Mappable, if there is one, and puts
// the vma there in the transaction.
//
// Preconditions: mappingMu is locked; activeMu is not. m is evacuated.
func (op *operation) copyMapping(m *relocation) error {
	if f := m.vma.mappable; f != nil {
		// AIO needs the MemoryManager itself here, and gets it: its rings never stay
		// registered under a pending space.
		if err := f.CopyMapping(op.ctx, m.vma.registeredWith(op.mm), m.src, m.dst, m.vma.off, m.vma.canWriteMappable()); err != nil {
			return err
		}
	}
	if m.src.Length() != 0 {
		m.from = op.gather(m.src)
	}
	op.insert(m.dst, m.vma)
	return nil
}

// installMoves publishes the new tree and moves the pages: sources gone, destinations
// there, at once. What the host has mapped at the source of a move that happens at once goes too, and is mapped at the destination.
//
// Preconditions: mappingMu is locked; activeMu is not.
func (op *operation) installMoves() {
	mm := op.mm
	mm.activeMu.Lock()
	defer op.unlockAndMap()
	op.publish()
	if mm.frozen != nil {
		mm.frozen.moves = nil
	}
	for i := range op.moves {
		m := &op.moves[i]
		if m.atOnce {
			op.clear(m.gone)
		}
		if m.from == nil {
			continue
		}
		m.pages = mm.takePMAs(m.src)
		moved := mm.putPMAs(&m.pages, uint64(m.dst.Start-m.src.Start))
		switch {
		case m.source != nil:
			m.source.register = true
			m.source.host = m.pages.Len() != 0
			m.over.fz.movedFrom = m.source
		case m.pages.Len() != 0:
			mm.unmapHost(hullOf(&m.pages)) // no more than a piece
			// Who moves pages is about to use them. If this fails, they fault.
			mm.prepareRemap(&op.maps, moved)
		}
	}
}

// clear takes the pages of ranges out, and unmaps them.
//
// Preconditions: activeMu is locked for writing. They are no more than a piece, and of no Mappable.
func (op *operation) clear(gone []*gathered) {
	for _, g := range gone {
		if g.pmas = op.mm.takePMAs(g.ar); g.pmas.Len() != 0 {
			op.mm.unmapHost(op.mm.hostHole(hullOf(&g.pmas)))
		}
	}
}

// unmapSources removes what the host has mapped at the sources, piece by piece.
//
// Preconditions: mappingMu is locked; activeMu is not.
func (op *operation) unmapSources() {
	some := false
	for i := range op.moves {
		if m := &op.moves[i]; m.source != nil && m.source.host {
			op.mm.inSteps(&m.pages, m.src)
			some = true
		}
	}
	if some {
		op.mm.endHost()
	}
}
