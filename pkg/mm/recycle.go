package mm

import (
	"time"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Much of what populating takes is to have the host clear new pages, and much of what unmapping takes is to give
// them back. A process that populates memory, unmaps it and populates some again gets the same pages: as many as it
// populated lately are kept for a moment when they are unmapped. They are as they were, and zeroed
// when they are wanted again, by who has to clear pages anyway (commit).

const (
	// recycleMax is the most bytes that are kept. Populating and unmapping 64 MiB beside a thread that computes, calls a
	// second:
	//
	//	nothing kept  16 MiB  32 MiB  64 MiB  128 MiB
	//	          11      13      16      30       32
	recycleMax = 64 << 20

	// recycleFor is how long they are kept while nothing is populated, at least, and twice that at most. The memory
	// file's goroutine takes about as long to take so many pages out.
	recycleFor = 20 * time.Millisecond
)

// recycled are pages to populate memory with, in pieces as populateStep makes them.
type recycled struct {
	shelf

	// limit is how many bytes may be kept: as many as were populated lately.
	limit uint64

	// timer expires when nothing has been populated for some time, and then limit is zero again. It is nil if limit is
	// zero. used is set if something was populated since timer was set.
	timer *time.Timer
	used  bool
}

// stop keeps nothing more.
//
// Preconditions: spares.mu is locked.
func (r *recycled) stop() {
	if r.timer != nil {
		r.timer.Stop()
	}
	r.limit, r.timer, r.used = 0, nil, false
}

// takeRecycled takes a range of n bytes that are counted for cgID, if there is one. Nobody has zeroed it. If there
// is none, n more bytes will be kept of what is unmapped.
func (mm *MemoryManager) takeRecycled(n uint64, cgID uint32) (memmap.FileRange, bool) {
	s := &mm.spares
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return memmap.FileRange{}, false
	}
	r := &s.recycled
	fr, ok := r.take(n, cgID)
	if !ok {
		r.limit = min(r.limit+n, recycleMax)
		if r.timer == nil {
			r.timer = afterFunc(recycleFor, mm.expireRecycled)
		}
	}
	r.used = true
	return fr, ok
}

// expireRecycled gives back what nobody wanted for some time.
func (mm *MemoryManager) expireRecycled() {
	mm.spares.giving.Lock()
	defer mm.spares.giving.Unlock()
	mm.giveBack(mm.spares.expire())
}

// expire takes what is recycled out, and keeps no more, unless something was populated since it was called last.
func (s *spares) expire() []memmap.FileRange {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.recycled
	if r.used {
		r.used = false
		r.timer.Reset(recycleFor)
		return nil
	}
	r.stop()
	return r.empty()
}

// afterFunc is time.AfterFunc. Tests say themselves when.
var afterFunc = time.AfterFunc

// recycle keeps the pages at the start of e, piece by piece, as many as there is room for. It returns the others.
//
// Preconditions: mayKeep.
func (mm *MemoryManager) recycle(e pmaEntry, cgID uint32) (rest memmap.FileRange) {
	s := &mm.spares
	s.mu.Lock()
	defer s.mu.Unlock()
	ar := addrRange(e.Range)
	for ar.Length() != 0 {
		piece := mm.populateStep(ar)
		fr := e.Value.fileRange(e.Start, piece)
		if !s.recycled.put(spareRange{fr, cgID}, s.recycled.limit) {
			break
		}
		ar.Start = piece.End
	}
	return e.Value.fileRange(e.Start, ar)
}

// zero zeroes fr, letting others run after as much as a step populates, and returns whether it could.
//
// Preconditions: the caller has the only reference on fr. No locks of mm are held.
func (mm *MemoryManager) zero(ctx context.Context, fr memmap.FileRange) bool {
	pages, err := mm.mf.MapInternal(fr, hostarch.Write)
	for err == nil && !pages.IsEmpty() && !ctx.Killed() {
		var n uint64
		n, err = safemem.ZeroSeq(pages.TakeFirst64(populateSize))
		pages = pages.DropFirst64(n)
		mm.letOthersRun()
	}
	return err == nil && pages.IsEmpty()
}
