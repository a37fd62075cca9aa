package mm

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// recentCount tells operations whether others do something over and over: fault, who would have to wait for the host or for a
// processor, or read /proc/[pid]/maps, who wait for a processor only.
type recentCount struct {
	times atomic.Uint64 // so far
	seen  atomic.Uint64 // of these, when recent was called last
	since atomic.Int32  // how often it was called since there was another
}

// recentFaults is for how many steps after a fault another one is expected. One that waits for a processor has not been
// counted yet; a thread that faults again and again does so every 100 microseconds or so, which is as long as four chunks
// take to clear. Populating and unmapping 64 MiB beside such a thread, with 2, 16 and 64:
//
//	p99 of its faults, microseconds  930   580   520
//	calls a second                  12.6   9.7   8.6
const recentFaults = 16

// note counts once more.
func (c *recentCount) note() { c.times.Add(1) }

// recent returns whether it was done since it was called last, or a few times before that.
func (c *recentCount) recent() bool {
	n := c.times.Load()
	if c.seen.Swap(n) != n {
		c.since.Store(0)
		return true
	}
	return n != 0 && c.since.Add(1) < recentFaults
}

// turnTime is how long those keep a processor, at least, who then give it away. Each time the scheduler sets them back by a slice, whatever they got done before. Beside a thread that
// faults, of populating and unmapping 64 MiB by 512 KiB and of reading ten lines of /proc/self/maps, each time and with 200, 400 and 800 microseconds; stock's are 19.5 and 12600 a second:
//
//	populating: p99 of faults, microseconds    402    391    417    484
//	            times a second                10.6   12.6   16.6   22.3
//	reading:    p99 of faults, microseconds    225    284    461    818
//	            times a second               10300  10400  11300  15200
const turnTime = 800 * time.Microsecond

// A turn is how long those have had a processor who give it away: operations and readers of one address space together.
type turn struct {
	since atomic.Int64 // when it began, by stepClock, in nanoseconds
}

// end gives the processor away to other threads, if the turn has been long enough, and begins the next one.
func (t *turn) end() {
	since := t.since.Load()
	now := stepClock().UnixNano()
	// The clock may have been set back.
	if took := now - since; took >= 0 && took < int64(turnTime) || !t.since.CompareAndSwap(since, now) {
		return
	}
	yield()
	t.since.Store(stepClock().UnixNano())
}

// letOthersRun lets whoever waits for a processor go first: goroutines, and where somebody faults, at the end of a turn, threads of the
// host. An operation of many steps calls it between them. Without it, a fault that waits for nothing but a processor waits until
// the scheduler takes it from the operation, which is one to several milliseconds.
//
// Where nobody does either, the operation keeps its processor: the scheduler would give it to threads that only compute, for
// as long, each time, and the operation would hardly get on.
//
// Preconditions: no locks of mm are held but mappingMu.
func (mm *MemoryManager) letOthersRun() {
	betweenSteps()
	runtime.Gosched()
	faults, reads := mm.faultCount.recent(), mm.readCount.recent()
	if faults || reads {
		mm.turn.end()
	}
}

// letCallersFirst lets those go first that ask the host. An operation calls it between steps that the platform's thread works for: it sleeps meanwhile, and has no
// processor to give away. With runtime.Gosched instead, beside faults, a munmap of 1 GiB took 100 milliseconds instead of 69, and their p99 was 0.9 to 1.0
// milliseconds either way.
//
// Preconditions: as for letOthersRun.
func (mm *MemoryManager) letCallersFirst() {
	betweenSteps()
	mm.turns.letOthersFirst()
}

// letFaultsRun lets whoever waits for a processor go first where somebody faults. What waits for nothing, again and again, calls it when it is done.
// Beside a thread that reads /proc/self/maps in a loop, the p99 of faults was 2.8 milliseconds, three times that under stock, and 1.3 when it did so after each read.
func (mm *MemoryManager) letFaultsRun() {
	if mm.faultCount.recent() {
		mm.turn.end()
	}
}

// betweenSteps is where tests see an operation between steps.
func betweenSteps() {
	if testHookLetOthersRun != nil {
		testHookLetOthersRun()
	}
}

// yield is sched_yield(2). Tests count it.
var yield = func() { unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// testHookLetOthersRun, if not nil, runs when an operation lets others run.
var testHookLetOthersRun func()
