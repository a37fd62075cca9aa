package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// population says how a mapping is populated before it is touched.
type population struct {
	effect memmap.MMapPlatformEffect
}

// commits returns whether there are to be pages behind all of the mapping.
func (p *population) commits() bool { return p.effect == memmap.PlatformEffectCommit }

// isMuch returns whether populating ar takes longer than one step.
func (p *population) isMuch(ar hostarch.AddrRange) bool {
	return ar.Length() > pieceSize || p.commits() && ar.Length() > populateSize
}

// request returns the pmas that p needs; owner is as in pmaRequest.
func (p *population) request(owner *operation) pmaRequest {
	return pmaRequest{touchesAll: p.commits(), ahead: p.commits(), owner: owner}
}

// firstPiece returns the part at the start of ar that ends at a multiple of size, or all of it.
//
// Preconditions: size is a power of two.
func firstPiece(ar hostarch.AddrRange, size hostarch.Addr) hostarch.AddrRange {
	if next := (ar.Start + size) &^ (size - 1); next > ar.Start && next < ar.End {
		ar.End = next
	}
	return ar
}

// populateStep returns the part at the start of ar that one step populates, if it has no memory for it yet. Huge pages stay whole.
func (mm *MemoryManager) populateStep(ar hostarch.AddrRange) hostarch.AddrRange {
	if mm.mf.HugepagesEnabled() {
		return firstPiece(ar, pieceSize)
	}
	return firstPiece(ar, populateSize)
}

// populate makes pmas for ar and maps them, piece by piece, letting others in
// between the pieces. It stops at the first error.
//
// Preconditions: a thaw may be awaited. ar is page-aligned.
func (mm *MemoryManager) populate(ctx context.Context, ar hostarch.AddrRange, how population) error {
	if how.isMuch(ar) {
		mm.copies.forget() // they may be the caller's own, and would keep the first steps short; see forgetOwn
	}
	c := mm.newCommitter(ctx)
	defer c.end()
	for ar.Length() != 0 {
		piece := mm.populateStep(ar)
		req := how.request(nil)
		var memory committed
		if how.commits() {
			memory, piece = c.commit(ar)
			req.memory = &memory
			if testHookCommitted != nil {
				testHookCommitted()
			}
		}
		root, end, err := mm.lockForAccess(piece, hostarch.NoAccess, false)
		if end == piece.Start {
			mm.drop(memory)
			return err
		}
		piece.End = end
		perr := mm.populatePiece(ctx, root, piece, how, req)
		mm.drop(memory)
		if perr != nil {
			return perr
		}
		if err != nil {
			return err
		}
		ar.Start = end
	}
	return nil
}

// testHookCommitted, if not nil, runs between committing memory for a piece and locking.
var testHookCommitted func()

// prefill makes pmas for what is more than one piece in ar, piece by piece, so that
// a section which needs all of them at once finds them there. What goes wrong, or is
// gone again by then, is that section's to find out.
//
// Preconditions: as for populate.
func (mm *MemoryManager) prefill(ctx context.Context, ar hostarch.AddrRange, ignorePermissions bool, req pmaRequest) {
	for ar.Length() > pieceSize {
		piece := firstPiece(ar, pieceSize)
		root, end, _ := mm.lockForAccess(piece, req.at, ignorePermissions)
		if end == piece.Start {
			return
		}
		piece.End = end
		end, err := mm.fill(ctx, root, piece, req)
		mm.activeMu.Unlock()
		if err != nil || end < piece.End {
			return
		}
		ar.Start = end
	}
}

// populatePiece does one piece.
//
// Preconditions: activeMu is locked for writing; it is unlocked on return. The
// rest is as for fill.
func (mm *MemoryManager) populatePiece(ctx context.Context, root vmaSnapshot, ar hostarch.AddrRange, how population, req pmaRequest) error {
	if mm.as == nil {
		// Nobody could use the pages.
		mm.activeMu.Unlock()
		return nil
	}
	end, err := mm.fill(ctx, root, ar, req)
	if end == ar.Start {
		mm.activeMu.Unlock()
		return err
	}
	ar.End = end
	begun := stepClock()
	if _, merr := mm.mapHostAndUnlock(ctx, ar, ar, how.effect, new(mapping)); merr != nil {
		return merr
	}
	if how.commits() {
		mm.populated.noteStep(ar.Length(), stepClock().Sub(begun), mm.copies.recent(), mm.mostAtOnce())
	}
	return err
}
