package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// PinnedRange is pages that Pin holds a reference on.
type PinnedRange struct {
	// Source is the addresses at which they were mapped.
	Source hostarch.AddrRange

	// File has them at Offset.
	File   memmap.File
	Offset uint64
}

// FileRange returns the offsets of the pages in pr.File.
func (pr PinnedRange) FileRange() memmap.FileRange {
	return memmap.FileRange{Start: pr.Offset, End: pr.Offset + uint64(pr.Source.Length())}
}

// Unpin releases the references that Pin took.
func Unpin(prs []PinnedRange) {
	for _, pr := range prs {
		pr.File.DecRef(pr.FileRange())
	}
}

// Pin returns the pages behind ar, with a reference on each that the caller gives
// back with Unpin. The pages stay; what is mapped at ar may change. Like Linux's
// pin_user_pages(FOLL_LONGTERM), which this stands in for, it ends copy-on-write for
// the pages even if at is for reading, so that they remain those of the application;
// so pinned private pages are exactly those with more than one reference that are
// not copy-on-write.
//
// If not all of ar can be had, Pin returns what comes before the first address that
// cannot, and an error that says why.
//
// Preconditions: ar is page-aligned and not empty.
func (mm *MemoryManager) Pin(ctx context.Context, ar hostarch.AddrRange, at hostarch.AccessType, ignorePermissions bool) ([]PinnedRange, error) {
	req := pmaRequest{at: at, unshare: true}
	mm.prefill(ctx, ar, ignorePermissions, req)
	root, end, err := mm.lockForAccess(ar, at, ignorePermissions)
	if end == ar.Start {
		return nil, err
	}
	defer mm.activeMu.Unlock()
	mm.hasPinned = true
	ar.End = end
	end, ferr := mm.fill(ctx, root, ar, req)
	if ferr != nil {
		err = ferr
	}
	ar.End = end
	cgID := pgalloc.MemoryCgroupIDFromContext(ctx)
	var prs []PinnedRange
	for r, p := range mm.pmas.Within(treeRange(ar)) {
		part := addrRange(r).Intersect(ar)
		fr := p.fileRange(r.Start, part)
		p.file.IncRef(fr, cgID)
		prs = append(prs, PinnedRange{Source: part, File: p.file, Offset: fr.Start})
	}
	return prs, err
}
