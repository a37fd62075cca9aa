package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/sync"
)

const (
	// pieceSize is the most bytes of pages that one bounded step maps, populates
	// or unmaps. It is a huge page: mapping one whose memory is committed takes the host
	// 250 microseconds, and unmapping it 90 (BenchmarkPopulate, BenchmarkUnmapStep), a few
	// times a fault; and smaller pieces would split huge pages.
	pieceSize = hostarch.HugePageSize

	// mapChunk is the most bytes that a single MapFile covers. Mapping without
	// populating does not cost by size, so this is larger than a piece: it bounds
	// how long a killed task may take to notice.
	mapChunk = 1 << 30

	// asyncLoadUnit limits what is mapped around a fault while the memory file is
	// still being read from a checkpoint: MapFile waits for all it covers.
	asyncLoadUnit = 32 << 20
)

// hostTurns says whose turn it is to ask the host for something in one address space. A platform may carry out one call after the other, and choose whose is next as
// mutexes do: who asks again and again, one call after the other, comes before those who have yet to wake up, for a millisecond. So
// between its calls it lets those go first.
//
// While a loop over fork maps 32 pages, one after the other, a fault took 1.2 milliseconds, and 0.1 to 0.2 like this.
type hostTurns struct {
	// mu is locked for reading by who asks.
	mu sync.RWMutex
}

// letOthersFirst waits until what others have asked for by now is done.
//
// Preconditions: the caller is not asking for anything.
func (t *hostTurns) letOthersFirst() {
	t.mu.Lock()
	t.mu.Unlock()
}

// mapFile maps p in as.
//
// Preconditions: as for mapping.run.
func (t *hostTurns) mapFile(as platform.AddressSpace, p *mappedPart) error {
	// This may wait for a gofer, or for pages to be loaded: better now, when nobody waits for it. MapFile says if it fails.
	p.file.DataFD(p.fr)
	t.mu.RLock()
	defer t.mu.RUnlock()
	return as.MapFile(p.start, p.file, p.fr, p.perms, p.commit)
}

// unmap unmaps ar in as.
//
// Preconditions: as for unmapHost.
func (t *hostTurns) unmap(as platform.AddressSpace, ar hostarch.AddrRange) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	as.Unmap(ar.Start, uint64(ar.Length()))
}

// mapHost maps the pmas in ar into the address space, and with the default effect
// as much around ar as costs nothing, within around.
//
// It returns how far from ar.Start pmas were dealt with, ar.End if there is no
// error.
//
// Preconditions: activeMu is locked for writing, and has been since the pmas were looked up.
// ar is page-aligned and not empty. mm.as is not nil.
func (mm *MemoryManager) mapHost(ctx context.Context, ar, around hostarch.AddrRange, effect memmap.MMapPlatformEffect) (hostarch.Addr, error) {
	var m mapping
	mm.prepareMap(&m, ar, around, effect)
	mm.awaitMaps(m.hull())
	return m.run(ctx, ar)
}

// mapHostAndUnlock is mapHost, but it unlocks activeMu before the host does anything.
//
// Preconditions: as for mapHost. The host has nothing mapped there that must not be seen any more. m is empty.
func (mm *MemoryManager) mapHostAndUnlock(ctx context.Context, ar, around hostarch.AddrRange, effect memmap.MMapPlatformEffect, m *mapping) (hostarch.Addr, error) {
	mm.prepareMap(m, ar, around, effect)
	mm.underWay.add(m)
	mm.activeMu.Unlock()
	defer mm.underWay.remove(m)
	return m.run(ctx, ar)
}

// mapWindow returns the range within which pmas are mapped when ar has to be;
// first is the first of them.
func (mm *MemoryManager) mapWindow(first *pma, ar hostarch.AddrRange, effect memmap.MMapPlatformEffect) hostarch.AddrRange {
	if effect != memmap.PlatformEffectDefault {
		// More would cost more than was asked for, and devices may mind.
		return ar
	}
	unit := mm.mapUnit(first)
	all := hostarch.AddrRange{End: ^hostarch.Addr(hostarch.PageSize - 1)}
	if unit == 0 {
		return all
	}
	window := hostarch.AddrRange{Start: ar.Start &^ (unit - 1), End: (ar.End + unit - 1) &^ (unit - 1)}
	if window.End < ar.End { // overflow
		window.End = all.End
	}
	return window
}

// mapUnit returns how much is mapped at once around what is wanted of p; 0 if mapping does not cost by size.
//
// Preconditions: activeMu is locked.
func (mm *MemoryManager) mapUnit(p *pma) hostarch.Addr {
	unit := hostarch.Addr(mm.p.MapUnit())
	if mf, ok := p.file.(*pgalloc.MemoryFile); unit == 0 && ok && mf.IsAsyncLoading() {
		unit = asyncLoadUnit
	}
	return unit
}

// mostRemapped is how many pmas are mapped anew, where mapping does not cost by size, rather than unmapped together. Each takes a
// call, as unmapping all of them does, and saves a fault, which costs as much as some calls.
const mostRemapped = 4

// prepareRemap adds es to m, for what is allowed now; they are in address order, and come after what m has. It returns false if that is not worth
// it, or not all can be mapped, and the host may have more mapped there.
//
// Preconditions: activeMu is locked.
func (mm *MemoryManager) prepareRemap(m *mapping, es []pmaEntry) bool {
	if mm.as == nil || len(es) > mostRemapped || mm.mapUnit(es[0].Value) != 0 {
		return false
	}
	m.mm, m.as = mm, mm.as
	for _, e := range es {
		if !m.add(e, addrRange(e.Range), false) {
			return false
		}
	}
	return true
}

// remap maps es, which are in address order, for what is allowed now. It returns false if that is not worth it or did not work, and the host
// may have more mapped there.
//
// Preconditions: activeMu is locked for writing.
func (mm *MemoryManager) remap(ctx context.Context, es []pmaEntry) bool {
	var m mapping
	if !mm.prepareRemap(&m, es) {
		return false
	}
	mm.awaitMaps(m.hull())
	_, err := m.run(ctx, m.hull())
	return err == nil
}

// unlockAndMap unlocks activeMu, and then has the host map what the operation has for it, which is the last that it does there. What could not
// be mapped is unmapped.
//
// Preconditions: mappingMu is locked; activeMu is locked for writing, and has been since the pmas were looked up.
func (op *operation) unlockAndMap() {
	mm, m := op.mm, &op.maps
	if len(m.parts) == 0 {
		mm.activeMu.Unlock()
		return
	}
	all := m.hull()
	mm.awaitMaps(all)
	mm.underWay.add(m)
	mm.activeMu.Unlock()
	if _, err := m.run(op.ctx, all); err != nil {
		// Who changes the pages waits for this, too. What faults have mapped there since is lost, and they come again.
		mm.turns.unmap(m.as, all)
	}
	mm.underWay.remove(m)
}

// unmapHost removes all that the host has mapped in ar.
//
// Preconditions: activeMu is locked, for writing when the pages were taken out; or mappingMu is locked, and the caller has ar frozen, or what is mapped there from now on may go, or stay. ar is page-aligned.
func (mm *MemoryManager) unmapHost(ar hostarch.AddrRange) {
	// After the last user has left there is no address space.
	if mm.as != nil && ar.Length() != 0 {
		mm.awaitMaps(ar)
		mm.turns.unmap(mm.as, ar)
	}
}

// hullOf returns the range from the first of taken, which is not empty, to the last.
func hullOf(taken *takenPMAs) hostarch.AddrRange {
	return hostarch.AddrRange{Start: hostarch.Addr(taken.At(0).Start), End: hostarch.Addr(taken.At(taken.Len() - 1).End)}
}

// hostHole extends ar, in which no pmas are left, over the holes next to it:
// nothing is mapped there, and platforms that keep page tables can drop whole
// ones. What an operation has yet to unmap, piece by piece, is no hole.
//
// Preconditions: activeMu is locked for writing.
func (mm *MemoryManager) hostHole(ar hostarch.AddrRange) hostarch.AddrRange {
	inside := ar
	low, high := mm.layout.MinAddr, mm.layout.MaxAddr
	if c := mm.pmas.UpperBound(uint64(ar.Start)); c.Valid() {
		low = hostarch.Addr(c.Range().End)
	}
	if c := mm.pmas.LowerBound(uint64(ar.End)); c.Valid() {
		high = hostarch.Addr(c.Range().Start)
	}
	ar.Start, ar.End = min(ar.Start, low), max(ar.End, high)
	return mm.frozen.clipPending(ar, inside)
}

// A pieceCutter cuts ranges into pieces for the host: none is empty, and none has more than pieceSize bytes of pages. Holes between ranges may lie inside a piece, for they cost
// nothing.
type pieceCutter struct {
	pieces []hostarch.AddrRange
	pages  hostarch.Addr // in the last piece; 0 if that is full
}

// add adds r, which comes after those before.
func (c *pieceCutter) add(r hostarch.AddrRange) {
	for r.Length() != 0 {
		n := min(r.Length(), pieceSize-c.pages)
		if c.pages == 0 {
			c.pieces = append(c.pieces, hostarch.AddrRange{Start: r.Start})
		}
		r.Start += n
		c.pieces[len(c.pieces)-1].End = r.Start
		c.pages = (c.pages + n) % pieceSize
	}
}

// hostPieces cuts what the pmas in taken cover, which are in address order.
func hostPieces(taken *takenPMAs) []hostarch.AddrRange {
	var c pieceCutter
	for i := range taken.Len() {
		c.add(addrRange(taken.At(i).Range))
	}
	return c.pieces
}

// piecesOf cuts ar, which is not empty, into pieces.
func piecesOf(ar hostarch.AddrRange) (pieces []hostarch.AddrRange) {
	for ar.Length() != 0 {
		piece := firstPiece(ar, pieceSize)
		pieces = append(pieces, piece)
		ar.Start = piece.End
	}
	return pieces
}
