package mm

import (
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// faultCount tells operations whether somebody faults who would have to wait for a processor.
type faultCount struct {
	faults  atomic.Uint64 // so far
	yielded atomic.Uint64 // when an operation gave its processor away the last time
}

// note counts a fault.
func (c *faultCount) note() { c.faults.Add(1) }

// news returns whether there were faults since it was called last.
func (c *faultCount) news() bool {
	n := c.faults.Load()
	return c.yielded.Swap(n) != n
}

// letOthersRun lets whoever waits for a processor go first: goroutines, and where somebody faults, threads of the
// host. An operation of many steps calls it between them. Without it, a fault that waits for nothing but a processor waits until
// the scheduler takes it from the operation, which is one to several milliseconds.
//
// Where nobody faults the operation keeps its processor: the scheduler would give it to threads that only compute, for
// as long, each time, and the operation would hardly get on.
//
// Preconditions: no locks of mm are held but mappingMu.
func (mm *MemoryManager) letOthersRun() {
	if testHookLetOthersRun != nil {
		testHookLetOthersRun()
	}
	runtime.Gosched()
	if mm.faultCount.news() {
		yield()
	}
}

// yield is sched_yield(2). Tests count it.
var yield = func() { unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// testHookLetOthersRun, if not nil, runs when an operation lets others run.
var testHookLetOthersRun func()
