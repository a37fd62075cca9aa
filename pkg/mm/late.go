package mm

import (
	"cmp"
	"slices"
	"time"

	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Giving pages back wakes the memory file's goroutine up, which has the host take them out, and a thread for it, at the very moment when
// the application goes on. For a program that unmaps page by page, or gives up little memory again and again, that is a third of what each
// call takes. So little memory is given back a moment later, together with what else there is by then. More at once is not: waking up is little
// beside it, and giving a megabyte back keeps whoever touches new memory meanwhile for longer. (For madvise of 64 KiB and touching it, see docs/performance.md.)

const (
	// lateBelow is how large a range has to be to be given back at once.
	lateBelow = 32 << 10

	// lateMax is the most bytes, of all ranges together, that are given back later.
	lateMax = 1 << 20

	// lateFor is how much later, at most.
	lateFor = 10 * time.Millisecond
)

// late is what is to be given back.
type late struct {
	ranges []memmap.FileRange
	bytes  uint64

	// timed is set if a timer runs.
	timed bool
}

// release releases a reference on fr, which may be empty: later, if ours says that it is the only one, on private pages.
//
// Preconditions: as for dropFileRefs.
func (mm *MemoryManager) release(file memmap.File, fr memmap.FileRange, ours bool) {
	switch {
	case fr.Length() == 0:
	case ours:
		mm.dropLater(fr)
	default:
		file.DecRef(fr)
	}
}

// dropLater releases the only reference on fr: now, if it is much, and otherwise within lateFor.
//
// Preconditions: as for dropFileRefs.
func (mm *MemoryManager) dropLater(fr memmap.FileRange) {
	if fr.Length() >= lateBelow {
		mm.mf.DecRef(fr)
		return
	}
	s := &mm.spares
	s.mu.Lock()
	l := &s.late
	l.ranges = append(l.ranges, fr)
	l.bytes += fr.Length()
	var now []memmap.FileRange
	if l.bytes > lateMax || s.closed {
		now = l.empty()
	} else if !l.timed {
		l.timed = true
		afterFunc(lateFor, mm.dropLate)
	}
	s.mu.Unlock()
	mm.giveBack(now)
}

// dropLate gives back what is to be.
//
// Preconditions: as for dropFileRefs.
func (mm *MemoryManager) dropLate() {
	s := &mm.spares
	s.giving.Lock()
	defer s.giving.Unlock()
	s.mu.Lock()
	s.late.timed = false
	now := s.late.empty()
	s.mu.Unlock()
	mm.giveBack(now)
}

// empty takes all out.
//
// Preconditions: spares.mu is locked.
func (l *late) empty() []memmap.FileRange {
	all := l.ranges
	l.ranges, l.bytes = nil, 0
	return all
}

// giveBack gives ranges back to the memory file, those that are neighbours together, and leaves them sorted.
//
// Preconditions: as for dropFileRefs.
func (mm *MemoryManager) giveBack(ranges []memmap.FileRange) {
	slices.SortFunc(ranges, func(a, b memmap.FileRange) int { return cmp.Compare(a.Start, b.Start) })
	for len(ranges) != 0 {
		fr := ranges[0]
		for ranges = ranges[1:]; len(ranges) != 0 && ranges[0].Start == fr.End; ranges = ranges[1:] {
			fr.End = ranges[0].End
		}
		mm.mf.DecRef(fr)
	}
}
