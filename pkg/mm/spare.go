package mm

import (
	"cmp"
	"slices"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sync"
)

// spareMax is the most bytes of pages that a MemoryManager keeps although nothing is mapped to them. It is enough
// for what programs map and unmap over and over, and little beside what a process has. Mapping, touching and
// unmapping 64 KiB; replacing them; brk up and down by as much; microseconds:
//
//	 32 KiB  292  121  268
//	128 KiB  198   88  160
//	512 KiB  206  108  167
//	  2 MiB  219  122  167
const spareMax = 128 << 10

// spares are pages that mappings had, for the next ones of the same size. Giving pages back and having others takes the
// host several calls and has it clear them, page fault by page fault; and the memory file's goroutine that takes them
// out wants a processor at the very moment when the application goes on. (Linux keeps pages too, processor by
// processor: struct per_cpu_pages.)
//
// Who asks for memory to be given back gets that: pages that madvise(2) gave up are not kept.
type spares struct {
	// giving is held by timers, from when they take pages out until these are given back. It comes before mu.
	giving sync.Mutex

	mu     sync.Mutex
	closed bool // nothing goes in any more

	// zeroed are for faults, which have no time to zero anything.
	zeroed shelf

	// recycled are in recycle.go, late in late.go.
	recycled recycled
	late     late
}

// shelf are ranges of the memory file that have one reference each. They are in the order of the file, so that ranges which are
// taken one after the other are neighbours, if there are some, and one pma and one mapping of the host's will do for them.
type shelf struct {
	bytes  uint64
	ranges []spareRange
}

// spareRange is a range of the memory file. Whoever has it has the only reference.
type spareRange struct {
	memmap.FileRange
	cgID uint32 // the memory cgroup that it is counted for
}

// take takes n bytes out that are counted for cgID, if there is a range of that length.
func (s *shelf) take(n uint64, cgID uint32) (memmap.FileRange, bool) {
	for i, r := range s.ranges {
		if r.Length() == n && r.cgID == cgID {
			s.ranges = slices.Delete(s.ranges, i, i+1)
			s.bytes -= n
			return r.FileRange, true
		}
	}
	return memmap.FileRange{}, false
}

// put puts r in and returns true, if no more than limit bytes are there then.
func (s *shelf) put(r spareRange, limit uint64) bool {
	if s.bytes+r.Length() > limit {
		return false
	}
	s.bytes += r.Length()
	s.ranges = slices.Insert(s.ranges, s.find(r.Start), r)
	return true
}

// find returns where in ranges one that begins at start belongs.
func (s *shelf) find(start uint64) int {
	i, _ := slices.BinarySearchFunc(s.ranges, start, func(r spareRange, start uint64) int { return cmp.Compare(r.Start, start) })
	return i
}

// empty takes all out.
func (s *shelf) empty() []memmap.FileRange {
	all := make([]memmap.FileRange, 0, len(s.ranges))
	for _, r := range s.ranges {
		all = append(all, r.FileRange)
	}
	*s = shelf{}
	return all
}

// take takes n zeroed bytes out that are counted for cgID, if there are that many in one range.
func (s *spares) take(n uint64, cgID uint32) (memmap.FileRange, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zeroed.take(n, cgID)
}

// put puts r in, which is zeroed, and returns true, if there is room.
func (s *spares) put(r spareRange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && s.zeroed.put(r, spareMax)
}

// hasRoom returns whether n bytes, or if they are more than spareMax some of them, would go in.
func (s *spares) hasRoom(n uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > spareMax {
		return s.recycled.bytes < s.recycled.limit
	}
	return !s.closed && s.zeroed.bytes+n <= spareMax
}

// close keeps everything out from now on.
func (s *spares) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.recycled.stop()
}

// takeAll takes everything out. What a timer had taken out before is given back by then.
func (s *spares) takeAll() []memmap.FileRange {
	s.giving.Lock()
	defer s.giving.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.zeroed.empty(), s.recycled.empty(), s.late.empty())
}

// isEmpty returns whether nothing is kept.
func (s *spares) isEmpty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zeroed.bytes == 0 && s.recycled.bytes == 0 && s.late.bytes == 0
}

// keepOrDrop releases the references of pmas that were taken out, but for pages that are worth keeping.
//
// Preconditions: as for dropFileRefs.
func (mm *MemoryManager) keepOrDrop(ctx context.Context, taken *takenPMAs) {
	for i := range taken.Len() {
		e := taken.At(i)
		rest, ours := wholeFileRange(e), mm.onlyOurs(e)
		if ours && mm.mayKeep(e) {
			cgID := pgalloc.MemoryCgroupIDFromContext(ctx)
			if e.Len() <= spareMax {
				rest = mm.keepZeroed(rest, cgID, e.Value.committed)
			} else {
				rest = mm.recycle(rest, cgID)
			}
		}
		mm.release(e.Value.file, rest, ours)
	}
}

// onlyOurs returns whether e's pages are nobody else's.
//
// Preconditions: e was taken out, and is not mapped by the host any more.
func (mm *MemoryManager) onlyOurs(e pmaEntry) bool {
	// Who has a reference may be about to give others some; but if it is us alone, nobody does.
	return e.Value.private && mm.mf.HasUniqueRef(wholeFileRange(e))
}

// mayKeep returns whether there is room for e's pages.
//
// Preconditions: onlyOurs.
func (mm *MemoryManager) mayKeep(e pmaEntry) bool {
	return !e.Value.huge && mm.spares.hasRoom(e.Len()) && !mm.mf.IsAsyncLoading()
}

// keepZeroed keeps the pages of fr as spare ones, if the host has committed all of them, as is known of those that were
// spare ones before. (If it has not, they cost nothing to have, and zeroing would commit them.) It returns what it did not keep.
//
// Preconditions: mayKeep. fr is no more than spareMax.
func (mm *MemoryManager) keepZeroed(fr memmap.FileRange, cgID uint32, committed bool) memmap.FileRange {
	pages, err := mm.mf.MapInternal(fr, hostarch.Write)
	if err != nil || !committed && !committedAll(pages) {
		return fr
	}
	if done, err := safemem.ZeroSeq(pages); err != nil || done != fr.Length() || !mm.spares.put(spareRange{fr, cgID}) {
		return fr
	}
	return memmap.FileRange{}
}

// committedAll returns whether the host has committed all pages of bs, which are no more than spareMax.
func committedAll(bs safemem.BlockSeq) bool {
	var in [spareMax / hostarch.PageSize]byte
	for ; !bs.IsEmpty(); bs = bs.Tail() {
		n := bs.Head().Len() / hostarch.PageSize
		if err := mincore(bs.Head(), in[:n]); err != nil {
			return false
		}
		for _, page := range in[:n] {
			if page&1 == 0 {
				return false
			}
		}
	}
	return true
}
