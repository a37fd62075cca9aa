package mm

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// An activity tells operations whether others do something over and over: fault, who would have to wait for the host or for a
// processor, read /proc/[pid]/maps, who wait for a processor only, or have the sentry copy, who wait for activeMu or a processor. It says so for some steps after the last time, and is written to no more often than it is asked.
type activity struct {
	noted atomic.Bool  // since recent was called last
	left  atomic.Int32 // how often it is recent without
}

// recentFaults is for how many steps after a fault another one is expected. One that waits for a processor has not been
// counted yet; a thread that faults again and again does so every 100 microseconds or so, which is as long as four chunks
// take to clear. Populating and unmapping 64 MiB beside such a thread, with 2, 16 and 64:
//
//	p99 of its faults, microseconds  930   580   520
//	calls a second                  12.6   9.7   8.6
const recentFaults = 16

// note notes that it was done.
func (c *activity) note() {
	if !c.noted.Load() {
		c.noted.Store(true)
	}
}

// recent returns whether it was done since it was called last, or a few times before that.
func (c *activity) recent() bool {
	if c.noted.Load() && c.noted.Swap(false) {
		c.left.Store(recentFaults - 1)
		return true
	}
	return c.left.Load() > 0 && c.left.Add(-1) >= 0
}

// forget forgets what was noted since recent was called last.
func (c *activity) forget() {
	if c.noted.Load() {
		c.noted.Store(false)
	}
}

// anyFaults is the faults of all address spaces together; operations that ask at the same time share what is recent. Those of others wait for no lock of this one, nor for its turn with the host, but for a processor: the host's scheduler puts a
// thread that wakes up behind the step of munmap that its processor is busy with, and leaves it there, though another one has nothing to do a few microseconds later. On
// ptrace, ten faults out of 530 took more than 0.3 milliseconds, 0.7 on average, and in a trace they waited for the rest of such a step. Beside munmap of 1 GiB in another process, with steps as
// if nobody faulted, and with shorter ones; stock's has a p99 of 175, and 16.1 a second:
//
//	p99 of faults, microseconds    516   211
//	munmaps a second              27.1  23.4
var anyFaults activity

// forgetOwn is called before the first of several steps. What was noted until then may be the caller's own faults and copies, who has touched or read what he now gives up or protects: nobody
// waits for him. Others will come again. Without it, touching and giving up 64 MiB on ptrace, beside who reads 60 000 lines of maps again and again, was done 66 times a second, and like this 94;
// stock's is done 82 times.
func (mm *MemoryManager) forgetOwn() {
	mm.faults.forget()
	mm.copies.forget()
	anyFaults.forget()
}

// turnTime is how long operations keep a processor, at least, who then give it away. Populating and unmapping 64 MiB beside a thread that faults, with sched_yield after 800 microseconds, and
// with a nap each time after 100, 200 and 300; stock's is done 21.9 times a second:
//
//	p99 of faults, microseconds   251   246   312   377
//	times a second               14.7  16.7  20.2  21.2
//
// Reading ten lines of /proc/self/maps, again and again, with sched_yield after 800 and with naps after 200; stock's are read 5980 times:
//
//	p99 of faults, microseconds    611   284
//	times a second               10640  9890
const turnTime = 200 * time.Microsecond

// readerNaps is how many naps as long as the last one a turn of readers of /proc/[pid]/maps is, at least, up to mostTurnTime. They wait for nothing else, and read as fast as they have the processor.
// Where a nap takes 100 microseconds and a read some 200, one after nearly each read halved how many there were. Beside faults on such a machine; stock's have a p99 of 3474, and there are 4230 reads (4 naps: 3967 and 4250):
//
//	naps                             2      3      4      5      8
//	p99 of faults, microseconds    854   1087   1858   1809   1951
//	reads a second                2290   2750   3650   4510   4930
//
// That was without mostTurnTime. With it, and 5 naps, p99 is 1460 and there are 3620 reads, where stock's has 3620 and 3900.
//
// A turn of operations is as long as ownThreadsNaps where each context has threads of its own on the host: there others have a processor several times for each thing that they do, and take it without being given it, too. Populating and
// unmapping 64 MiB on such a machine on ptrace, where a nap takes 220 microseconds, with steps of up to 1 MiB and turns of turnTime, and with steps of up to 4 and 3 or 5 naps, beside whom; stock's are done 24.8, 17.7, 18.3 and 20.6 times a second:
//
//	faults                 10.2  11.4  12.1
//	read and write         10.3  10.3  10.3
//	10 lines of maps        9.7  12.9  12.0
//	1000 lines              9.7  10.4  12.0
const (
	readerNaps     = 5
	ownThreadsNaps = 3
	mostTurnTime   = time.Millisecond
)

// sched_yield does nothing if nobody waits for the processor. If somebody does, the scheduler sets the caller back by a slice, some milliseconds, though
// a fault needs no more than a few microseconds at a time. A nap of some 60 microseconds, which is the least that a timer waits for, lets others in as well, and whoever wakes up from it
// has kept his place; but it takes as long if nobody waits. So it is sched_yield that shows which is the case, and after one that
// took longer than longYield, the next napsInARow turns end with a nap.
const (
	longYield  = 100 * time.Microsecond
	napsInARow = 256
)

// A turn is how long those have had a processor who give it away: operations and readers of one address space together.
type turn struct {
	since atomic.Int64 // when it began, by stepClock, in nanoseconds
	naps  atomic.Int32 // how many more turns end with a nap
	nap   atomic.Int64 // how long the last one took, in nanoseconds
}

// time is how long a turn is, at least, that is as long as so many naps.
func (t *turn) time(naps time.Duration) time.Duration {
	return max(turnTime, min(naps*time.Duration(t.nap.Load()), mostTurnTime))
}

// end gives the processor away to other threads, if the turn has been as long as least, and begins the next one.
func (t *turn) end(least time.Duration) {
	since := t.since.Load()
	now := stepClock().UnixNano()
	// The clock may have been set back.
	if took := now - since; took >= 0 && took < int64(least) || !t.since.CompareAndSwap(since, now) {
		return
	}
	if naps := t.naps.Load(); naps > 0 {
		t.naps.Store(naps - 1)
		nap()
		end := stepClock().UnixNano()
		t.nap.Store(end - now)
		t.since.Store(end)
		return
	}
	yield()
	end := stepClock().UnixNano()
	if end-now > int64(longYield) {
		t.naps.Store(napsInARow)
	}
	t.since.Store(end)
}

// letOthersRun lets whoever waits for a processor go first: goroutines, and where somebody faults, at the end of a turn, threads of the
// host. An operation of many steps calls it between them. Without it, a fault that waits for nothing but a processor waits until
// the scheduler takes it from the operation, which is one to several milliseconds.
//
// Where each context has threads of its own on the host, that goes for copies, too: several of these threads need a processor for one. Populating and unmapping 64 MiB on ptrace beside a thread that
// reads and writes, without it and with it, and with the shorter steps that noteStep has then as well; stock's is done 10.5 times a second, and has a p99 of 473:
//
//	p99 of read and write, microseconds   574   363   312
//	times a second                       16.5  18.1  16.1
//
// On systrap p99 stays what it is, and a third fewer are done.
//
// Where nobody does anything of that, the operation keeps its processor: the scheduler would give it to threads that only compute, for
// as long, each time, and the operation would hardly get on.
//
// Preconditions: no locks of mm are held but mappingMu.
func (mm *MemoryManager) letOthersRun() {
	betweenSteps()
	runtime.Gosched()
	faults, reads, copies := mm.faults.recent(), mm.mapsReads.recent(), mm.copies.recent()
	least, own := turnTime, mm.ownThreads()
	if own {
		least = mm.turn.time(ownThreadsNaps)
	}
	if faults || reads || copies && own {
		mm.turn.end(least)
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
	if mm.faults.recent() {
		mm.turn.end(mm.turn.time(readerNaps))
	}
}

// betweenSteps is where tests see an operation between steps.
func betweenSteps() {
	if testHookLetOthersRun != nil {
		testHookLetOthersRun()
	}
}

// yield is sched_yield(2), and nap the shortest nanosleep(2). Tests have their own.
var (
	yield = func() { unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
	nap   = func() { unix.Nanosleep(&unix.Timespec{Nsec: 1}, nil) }
)

// testHookLetOthersRun, if not nil, runs when an operation lets others run.
var testHookLetOthersRun func()
