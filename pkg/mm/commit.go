package mm

import (
	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

// committed is memory for a hole that is about to be populated. It is made while nobody has to
// wait for that: most of what populating costs is that the host clears pages, and with activeMu
// locked, or in the platform, where the host calls of an address space queue, all faults of the
// application would wait.
type committed struct {
	ar hostarch.AddrRange // the addresses that it is for
	fr memmap.FileRange   // empty if there is none, or it was used

	// of, if it has a file, is what fr is a copy of, or is to become one of, with a reference: see copy.go. The sentry has it at
	// blocks. dir is where in the file the copy is to lie.
	of     fileRef
	blocks safemem.BlockSeq
	dir    pgalloc.Direction
}

// cleared is what pages are committed with, and zeroed again: as many at once as take some 25 microseconds. A thread that comes then gets
// the processor that soon. (With four times as many, the p99 of faults was a third longer, beside others
// that populate.)
var cleared [clearAgain]byte

const (
	clearNew   = 64 << 10
	clearAgain = 256 << 10
)

// A committer makes memory for a range that is populated piece by piece.
type committer struct {
	mm   *MemoryManager
	ctx  context.Context
	cgID uint32

	// reserve is memory for the addresses in reserved, which come next. All of a hole gets it at once, so that it lies in one piece, however many
	// others get some meanwhile: then one pma and one mapping of the host's will do.
	reserve  memmap.FileRange
	reserved hostarch.AddrRange
}

func (mm *MemoryManager) newCommitter(ctx context.Context) committer {
	return committer{mm: mm, ctx: ctx, cgID: pgalloc.MemoryCgroupIDFromContext(ctx)}
}

// commit makes memory for the hole at the start of rest, if there is one in anonymous memory; all of rest is going to be
// populated. It returns what the next step is to populate, too: as much as the memory is for, or what one may populate with activeMu locked. By the time that it is used it may be the wrong memory: then it is given back. No error is reported
// here: who populates will meet it again.
//
// Preconditions: rest is not empty. No locks of mm are held.
func (c *committer) commit(rest hostarch.AddrRange) (committed, hostarch.AddrRange) {
	mm := c.mm
	piece := mm.populateStep(rest)
	e, ok := mm.vmas.Snapshot().Find(uint64(rest.Start))
	if !ok || e.Value.mappable != nil || !e.Value.effectivePerms.Any() {
		return committed{}, piece
	}
	mm.activeMu.RLock()
	_, _, hole := mm.pmaOrHole(rest.Start, addrRange(e.Range), nil)
	mm.activeMu.RUnlock()
	around, huge := mm.firstHugePart(e.Value, hole.Intersect(growToHuge(rest)))
	ar := around.Intersect(firstPiece(rest, mm.populated.now()))
	if ar.Length() == 0 || huge {
		return committed{}, piece
	}
	fr, ready := mm.takeRecycled(uint64(ar.Length()), c.cgID)
	if ready {
		if got := ar.Start + hostarch.Addr(fr.Length()); got < ar.End {
			ar.End, piece.End = got, got
		}
		ready = c.clear(fr, clearAgain)
	} else if fr, ready = c.fromReserve(ar, around.Intersect(rest)); ready {
		c.clear(fr, clearNew) // all of it or not: what is new reads as zeroes
	}
	if !ready {
		mm.drop(committed{fr: fr})
		return committed{}, piece
	}
	piece.End = max(piece.End, ar.End)
	return committed{ar: ar, fr: fr}, piece
}

// fromReserve returns memory for ar from the reserve; if that has none, there is going to be one for all of hole from ar on.
//
// Preconditions: ar is the start of hole, which is not empty.
func (c *committer) fromReserve(ar, hole hostarch.AddrRange) (memmap.FileRange, bool) {
	if c.reserved.IsSupersetOf(ar) {
		// There may have been recycled pages meanwhile, or somebody else's fault.
		c.mm.drop(committed{fr: c.takeReserve(ar.Start - c.reserved.Start)})
	} else {
		c.end()
		fr, err := c.mm.mf.Allocate(uint64(hole.Length()), pgalloc.AllocOpts{
			Kind:    usage.Anonymous,
			MemCgID: c.cgID,
			Mode:    pgalloc.AllocateCallerIndirectCommit,
			Dir:     pgalloc.BottomUp,
		})
		if err != nil {
			return memmap.FileRange{}, false
		}
		c.reserve, c.reserved = fr, hole
	}
	return c.takeReserve(ar.Length()), true
}

// takeReserve takes the first n bytes of the reserve.
//
// Preconditions: it has them.
func (c *committer) takeReserve(n hostarch.Addr) memmap.FileRange {
	fr := memmap.FileRange{Start: c.reserve.Start, End: c.reserve.Start + uint64(n)}
	c.reserve.Start = fr.End
	c.reserved.Start += n
	return fr
}

// clear writes zeroes to fr, atOnce bytes at a time, and returns whether it did all.
//
// Of the ways to commit pages, this costs the least: fallocate leaves it to the first access to clear them, and touching them here costs page
// tables, twice (BenchmarkPopulate). So it does with pages that were used before, if the sentry has not touched them yet: 64 MiB take 6 milliseconds, and touching them 10 to 300. If it
// has, zeroing them takes 3.
//
// Preconditions: the caller has the only reference on fr. No locks of mm are held.
func (c *committer) clear(fr memmap.FileRange, atOnce uint64) bool {
	fd, err := c.mm.mf.DataFD(fr)
	if err != nil {
		return false
	}
	for off := fr.Start; off < fr.End; {
		if c.ctx.Killed() {
			return false
		}
		n, err := unix.Pwrite(fd, cleared[:min(atOnce, fr.End-off)], int64(off))
		if err != nil || n == 0 {
			return false
		}
		off += uint64(n)
		c.mm.letOthersRun()
	}
	return true
}

// end gives back what is left of the reserve.
func (c *committer) end() {
	c.mm.drop(committed{fr: c.reserve})
	c.reserve, c.reserved = memmap.FileRange{}, hostarch.AddrRange{}
}

// take returns the memory and the addresses that it is for, if these are all in hole.
func (c *committed) take(hole hostarch.AddrRange) (hostarch.AddrRange, memmap.FileRange, bool) {
	if c == nil || c.fr.Length() == 0 || c.of.file != nil || !hole.IsSupersetOf(c.ar) {
		return hostarch.AddrRange{}, memmap.FileRange{}, false
	}
	fr := c.fr
	c.fr = memmap.FileRange{}
	return c.ar, fr, true
}

// drop gives the memory back that was not used.
func (mm *MemoryManager) drop(c committed) {
	if c.fr.Length() != 0 {
		mm.mf.DecRef(c.fr)
	}
	if c.of.file != nil {
		c.of.file.DecRef(c.of.fr)
	}
}
