package mm

import (
	"errors"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

// Breaking copy-on-write is mostly copying, and new pages for that; with a fork going on beside others that takes the host one to
// several milliseconds for 2 MiB. So a fault copies without locks, and then looks whether the pages are still those that it
// copied (Linux: wp_page_copy). They cannot have changed: as long as it has a reference on them nobody takes them over, so
// that nobody writes to them, and nobody gets them anew.

// errCopyAside is fill's, if there is something to be copied before it can go on: the request's memory says what.
var errCopyAside = errors.New("pages are to be copied first")

// asideMin is from how many bytes on a copy is made without locks. Less takes no longer than to lock twice.
const asideMin = copyUnit

// wantsAside notes what is to be copied, and returns true, if pages of e at ar are to be copied without locks.
//
// Preconditions: activeMu is locked for writing. e covers ar, is copy-on-write and has internal mappings.
func (f *filler) wantsAside(v vmatreeVMA, e pmaEntry, ar hostarch.AddrRange) bool {
	c := f.want.memory
	// Pages of a file may have to be given back to it, or change. If there is a copy already that did not fit, others
	// are changing what is mapped, and then this one is made with activeMu locked.
	if !f.want.copyAside || !e.Value.private || ar.Length() < asideMin || c.fr.Length() != 0 || c.of.file != nil {
		return false
	}
	*c = committed{ar: ar, of: fileRef{e.Value.file, e.Value.fileRange(e.Start, ar)}, blocks: blocksOf(e, ar), dir: f.direction(v)}
	c.of.file.IncRef(c.of.fr, f.cgID)
	return true
}

// copyAside makes the copy that is wanted. If it cannot, there is none, and who copies with activeMu locked meets the error again.
//
// Preconditions: fill returned errCopyAside. No locks of mm are held.
func (mm *MemoryManager) copyAside(ctx context.Context, c *committed) {
	fr, err := mm.copyPages(c.blocks, mm.copiesHuge(c.ar), c.dir, pgalloc.MemoryCgroupIDFromContext(ctx))
	switch {
	case err == nil:
		c.fr = fr
	case fr.Length() != 0:
		mm.mf.DecRef(fr)
	}
	if testHookCopied != nil {
		testHookCopied()
	}
}

// testHookCopied, if not nil, runs between making a copy without locks and locking.
var testHookCopied func()

// copyPages returns memory that has what is in source, in huge pages or not, with a reference that is the caller's. With an error it
// returns as much as was copied.
func (mm *MemoryManager) copyPages(source safemem.BlockSeq, huge bool, dir pgalloc.Direction, cgID uint32) (memmap.FileRange, error) {
	r := safemem.BlockSeqReader{Blocks: source}
	return mm.mf.Allocate(source.NumBytes(), pgalloc.AllocOpts{
		Kind:       usage.Anonymous,
		MemCgID:    cgID,
		Mode:       pgalloc.AllocateAndWritePopulate,
		Huge:       huge,
		Dir:        dir,
		ReaderFunc: r.ReadToBlocks,
	})
}

// copiesHuge returns whether a copy for ar is made of huge pages.
func (mm *MemoryManager) copiesHuge(ar hostarch.AddrRange) bool {
	return mm.mf.HugepagesEnabled() && ar.IsHugePageAligned()
}

// takeCopy returns the copy, and the addresses that it is for, if it is one of e's pages that are there. What it is a copy of is
// left to the caller to drop.
//
// Preconditions: activeMu is locked for writing.
func (c *committed) takeCopy(e pmaEntry, within hostarch.AddrRange) (ar hostarch.AddrRange, fr memmap.FileRange, of fileRef, ok bool) {
	if c == nil || c.fr.Length() == 0 || c.of.file == nil {
		return
	}
	have := addrRange(e.Range).Intersect(within)
	if !have.IsSupersetOf(c.ar) || e.Value.file != c.of.file || e.Value.fileRange(e.Start, c.ar) != c.of.fr {
		return
	}
	ar, fr, of = c.ar, c.fr, c.of
	*c = committed{}
	return ar, fr, of, true
}
