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

// request returns the pmas that p needs; owner is as in pmaRequest.
func (p *population) request(owner *operation) pmaRequest {
	commit := p.effect == memmap.PlatformEffectCommit
	return pmaRequest{touchesAll: commit, ahead: commit, owner: owner}
}

// firstPiece returns the part at the start of ar that one step populates. It ends
// at a multiple of pieceSize, so that huge pages stay whole.
func firstPiece(ar hostarch.AddrRange) hostarch.AddrRange {
	if next := (ar.Start + pieceSize) &^ (pieceSize - 1); next > ar.Start && next < ar.End {
		ar.End = next
	}
	return ar
}

// populate makes pmas for ar and maps them, piece by piece, letting others in
// between the pieces. It stops at the first error.
//
// Preconditions: a thaw may be awaited. ar is page-aligned.
func (mm *MemoryManager) populate(ctx context.Context, ar hostarch.AddrRange, how population) error {
	for ar.Length() != 0 {
		piece := firstPiece(ar)
		root, end, err := mm.lockForAccess(piece, hostarch.NoAccess, false)
		if end == piece.Start {
			return err
		}
		piece.End = end
		if err := mm.populatePiece(ctx, root, piece, how, nil); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		ar.Start = end
	}
	return nil
}

// prefill makes pmas for what is more than one piece in ar, piece by piece, so that
// a section which needs all of them at once finds them there. What goes wrong, or is
// gone again by then, is that section's to find out.
//
// Preconditions: as for populate.
func (mm *MemoryManager) prefill(ctx context.Context, ar hostarch.AddrRange, ignorePermissions bool, req pmaRequest) {
	for ar.Length() > pieceSize {
		piece := firstPiece(ar)
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
func (mm *MemoryManager) populatePiece(ctx context.Context, root vmaSnapshot, ar hostarch.AddrRange, how population, owner *operation) error {
	if mm.as == nil {
		// Nobody could use the pages.
		mm.activeMu.Unlock()
		return nil
	}
	end, err := mm.fill(ctx, root, ar, how.request(owner))
	mm.activeMu.DowngradeLock()
	defer mm.activeMu.RUnlock()
	if end > ar.Start {
		if _, merr := mm.mapHost(ctx, hostarch.AddrRange{Start: ar.Start, End: end}, how.effect); merr != nil {
			return merr
		}
	}
	return err
}
