package mm

import (
	"time"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sync"
)

// How much a step populates depends on what a call of the host's takes, whatever it is asked for. Beside faults, on a machine with slow ones, 256 KiB take 105 microseconds, and 25 if nobody else wants
// anything: there a step may just as well populate more. A fault has a call, too, for a page or a few, and how long that takes is what others know to
// compare a step with. So a step populates twice as much if it takes hardly longer than a fault's call, and half as much if it takes much longer.
// That goes for steps that have their memory before (commit): others allocate and copy with activeMu locked.

const (
	// populateSize is the fewest bytes that a step populates where there are no huge pages, if there is so much. On a machine with quick switches, beside populate+munmap of
	// 64 MiB, without giving processors away, with 512, 256 and 128 KiB; stock's is done 18.6 times a second:
	//
	//	p99 of faults, microseconds   475   374   330
	//	times a second               39.5  28.6  19.9
	populateSize = 256 << 10

	// stepsToTell is how many steps of one size tell how long they take.
	stepsToTell = 16
)

// mostPopulated is the most. Tests have all steps alike. On a machine with slow ones, with 256 and 512 KiB, 1 and 2 MiB; stock's is done 30.5 times a second:
//
//	p99 of faults, microseconds   804   836   891  1027
//	times a second               15.6  20.7  22.6  23.5
var mostPopulated hostarch.Addr = 1 << 20

// ownThreadsPopulated is how many times that where each context has threads of its own on the host, as on ptrace: a call begins with switching to one of them. On a machine with slow ones on ptrace, with 1, 4 and 16, beside whom; stock's are done 26.8, 18.4 and 18.5 times a second:
//
//	faults                       12.1  13.3  13.4
//	read and write               11.1  15.8  12.4
//	faults of another process    20.8  24.6  26.6
const ownThreadsPopulated = 4

// mostAtOnce returns the most that a step populates.
func (mm *MemoryManager) mostAtOnce() hostarch.Addr {
	if mm.ownThreads() {
		return ownThreadsPopulated * mostPopulated
	}
	return mostPopulated
}

// stepSize is how much a step populates.
type stepSize struct {
	mu sync.Mutex

	// doubled is how often populateSize was doubled.
	doubled int

	// fault is what the host takes for a fault, and step for one of this size. There were so many steps, and so many faults since the first of them.
	fault, step   typical
	steps, faults int

	// copies is whether somebody copied since.
	copies bool
}

// now returns how many bytes the next step populates, a power of two.
func (s *stepSize) now() hostarch.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size()
}

// size is now.
//
// Preconditions: mu is locked.
func (s *stepSize) size() hostarch.Addr { return populateSize << s.doubled }

// noteFault notes that the host took d for what a fault wanted.
func (s *stepSize) noteFault(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault.note(d)
	s.faults++
}

// noteStep notes that the host took d to populate n bytes, and whether somebody has the sentry copy meanwhile. Steps that take longer than two faults are halved. Those that take less than one and a half are doubled, and
// so are all while nobody faults or copies, up to most.
func (s *stepSize) noteStep(n hostarch.Addr, d time.Duration, copies bool, most hostarch.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n != s.size() {
		return // the first or last, or somebody else's
	}
	s.step.note(d)
	s.copies = s.copies || copies
	if s.steps++; s.steps < stepsToTell {
		return
	}
	quiet := s.faults == 0 && !s.copies
	switch {
	case (quiet || s.step < 3*s.fault/2) && s.size() < most:
		s.doubled++
	case !quiet && s.step > 2*s.fault && s.size() > populateSize:
		s.doubled--
	}
	s.step, s.steps, s.faults, s.copies = 0, 0, 0, false
}

// typical is about the median of some times: what is far off counts like what is not. It is 0 if there are none.
type typical time.Duration

// note notes another one.
func (t *typical) note(d time.Duration) {
	switch by := *t / 16; {
	case *t == 0:
		*t = typical(d)
	case typical(d) > *t:
		*t += by
	default:
		*t -= by
	}
}
