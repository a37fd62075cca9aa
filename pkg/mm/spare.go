package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sync"
)

// spareMax is the most bytes of pages that a MemoryManager keeps although nothing is mapped to them. It is enough
// for what programs map and unmap over and over, and little beside what a process has.
const spareMax = 128 << 10

// spares are pages that mappings had, zeroed, for the next ones of the same size. Giving pages back and
// having others takes the host several calls and has it clear them, page fault by page fault; and the memory
// file's goroutine that takes them out wants a processor at the very moment when the application goes on.
// (Linux keeps pages too, processor by processor: struct per_cpu_pages.)
//
// Who asks for memory to be given back gets that: pages that madvise(2) gave up are not kept.
type spares struct {
	mu     sync.Mutex
	bytes  uint64
	ranges []spareRange
	closed bool // nothing goes in any more
}

// spareRange is a range of the memory file that has one reference, which is held by the spares.
type spareRange struct {
	memmap.FileRange
	cgID uint32 // the memory cgroup that it is counted for
}

// take takes n bytes out that are counted for cgID, if there are that many in one range.
func (s *spares) take(n uint64, cgID uint32) (memmap.FileRange, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.ranges {
		if r.Length() == n && r.cgID == cgID {
			last := len(s.ranges) - 1
			s.ranges[i] = s.ranges[last]
			s.ranges = s.ranges[:last]
			s.bytes -= n
			return r.FileRange, true
		}
	}
	return memmap.FileRange{}, false
}

// put puts r in and returns true, if there is room.
func (s *spares) put(r spareRange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.bytes+r.Length() > spareMax {
		return false
	}
	s.bytes += r.Length()
	s.ranges = append(s.ranges, r)
	return true
}

// hasRoom returns whether n bytes would go in.
func (s *spares) hasRoom(n uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && s.bytes+n <= spareMax
}

// close keeps everything out from now on.
func (s *spares) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// takeAll empties s.
func (s *spares) takeAll() []spareRange {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.ranges
	s.ranges, s.bytes = nil, 0
	return all
}

// releaseSpares gives all back to the memory file.
func (mm *MemoryManager) releaseSpares() {
	for _, r := range mm.spares.takeAll() {
		mm.mf.DecRef(r.FileRange)
	}
}

// keepOrDrop releases the references of pmas that were taken out, but for pages that are worth keeping.
//
// Preconditions: as for dropFileRefs.
func (mm *MemoryManager) keepOrDrop(ctx context.Context, taken *takenPMAs) {
	for i := range taken.Len() {
		if e := taken.At(i); !mm.keep(ctx, e) {
			e.Value.file.DecRef(wholeFileRange(e))
		}
	}
}

// keep keeps e's pages as spare ones and returns true, if there is room, they are nobody else's, and the host has
// committed all of them. (If it has not, they cost nothing to have, and zeroing would commit them.)
//
// Preconditions: e was taken out, and is not mapped by the host any more.
func (mm *MemoryManager) keep(ctx context.Context, e pmaEntry) bool {
	p, n := e.Value, e.Len()
	if !p.private || p.huge || !mm.spares.hasRoom(n) || mm.mf.IsAsyncLoading() {
		return false
	}
	// Who has a reference may be about to give others some; but if it is us alone, nobody does.
	fr := wholeFileRange(e)
	if !mm.mf.HasUniqueRef(fr) {
		return false
	}
	pages, err := mm.mf.MapInternal(fr, hostarch.Write)
	if err != nil || !committedAll(pages) {
		return false
	}
	if done, err := safemem.ZeroSeq(pages); err != nil || done != n {
		return false
	}
	return mm.spares.put(spareRange{fr, pgalloc.MemoryCgroupIDFromContext(ctx)})
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
