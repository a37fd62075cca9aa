package mm

import (
	"slices"
	"time"

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

	// recycleFor is how long they are kept while nothing is populated, at least, and twice that at most. It is longer than most of what a populating thread may have to wait
	// for: in a trace another thread's munmap of 8 GiB took 67 milliseconds, and with 20 instead of 100, what was kept had gone by then; populating 64 MiB took 221 milliseconds instead of 50.
	recycleFor = 100 * time.Millisecond
)

// recycled are pages to populate memory with. Ranges that are neighbours are joined, and whoever takes some may take part of one.
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

// take takes up to n bytes out, of the first range that is counted for cgID.
//
// Preconditions: spares.mu is locked.
func (r *recycled) take(n uint64, cgID uint32) (memmap.FileRange, bool) {
	for i := range r.ranges {
		first := &r.ranges[i]
		if first.cgID != cgID {
			continue
		}
		fr := first.FileRange
		fr.End = min(fr.End, fr.Start+n)
		if first.Start = fr.End; first.Length() == 0 {
			r.ranges = slices.Delete(r.ranges, i, i+1)
		}
		r.bytes -= fr.Length()
		return fr, true
	}
	return memmap.FileRange{}, false
}

// put puts the start of s in, as much of it as there is room for, and returns the rest.
//
// Preconditions: spares.mu is locked.
func (r *recycled) put(s spareRange) (rest memmap.FileRange) {
	room := r.limit - min(r.bytes, r.limit)
	rest = s.FileRange
	rest.Start += min(rest.Length(), room)
	if s.End = rest.Start; s.Length() == 0 {
		return rest
	}
	r.bytes += s.Length()
	i := r.find(s.Start)
	if i < len(r.ranges) && r.ranges[i].cgID == s.cgID && r.ranges[i].Start == s.End {
		s.End = r.ranges[i].End
		r.ranges = slices.Delete(r.ranges, i, i+1)
	}
	if i > 0 && r.ranges[i-1].cgID == s.cgID && r.ranges[i-1].End == s.Start {
		r.ranges[i-1].End = s.End
	} else {
		r.ranges = slices.Insert(r.ranges, i, s)
	}
	return rest
}

// takeRecycled takes up to n bytes that are counted for cgID, if there are some. Nobody has zeroed them. If there
// are none, n more bytes will be kept of what is unmapped.
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

// recycle keeps pages, as many from the start of fr on as there is room for. It returns the others.
//
// Preconditions: mayKeep.
func (mm *MemoryManager) recycle(fr memmap.FileRange, cgID uint32) (rest memmap.FileRange) {
	s := &mm.spares
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recycled.put(spareRange{fr, cgID})
}
