//go:build mmtimes

package mm

import (
	"encoding/json"
	"time"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sync"
)

// The build tag mmtimes makes a memory manager that says in the sandbox's log how long faults take, and how long they would
// take if the memory manager took no time at all and nobody waited for its locks. What is left then is the platform's, the host's
// and the application's. It is for test/bench, which compares the two.

// faultTimes are those of one fault.
type faultTimes struct {
	begun, asked time.Time
	host         time.Duration
}

// begin is called when the fault has come.
func (t *faultTimes) begin() { t.begun = stepClock() }

// askHost is called before the host is to do something for the fault, and hostDone after that. Between the two the fault waits for the
// platform, for what that does for others, and for its turn with it (hostTurns); activeMu may be locked, but is not waited for.
func (t *faultTimes) askHost()  { t.asked = stepClock() }
func (t *faultTimes) hostDone() { t.host += stepClock().Sub(t.asked) }

// end is called when the application is about to go on, which faulted at that page.
//
// Preconditions: no locks are held.
func (t *faultTimes) end(ctx context.Context, page hostarch.Addr) {
	theFaultLog.note(ctx, page, t.begun, stepClock(), t.host)
}

// faultsInLine is how many faults of a thread there are in one line of the log.
const faultsInLine = 100

// A faultLog has the faults of all threads that have yet to be logged, for as long as the sandbox is there: threads that end stay in it.
type faultLog struct {
	mu      sync.Mutex
	threads map[context.Context]*threadFaults
}

var theFaultLog = faultLog{threads: map[context.Context]*threadFaults{}}

// threadFaults are faults of a thread: the pages, and how long they took, each from the end of the one before to its own, in nanoseconds. What is
// outside of the memory manager is the way to the application and back, and what that does.
type threadFaults struct {
	last time.Time

	// All is all of a fault, Without what it took outside, and the host.
	Pages        []hostarch.Addr
	All, Without []int64
}

// note notes a fault of ctx's thread.
func (l *faultLog) note(ctx context.Context, page hostarch.Addr, begun, ended time.Time, host time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.threads[ctx]
	if t == nil {
		t = &threadFaults{last: begun}
		l.threads[ctx] = t
	}
	outside := begun.Sub(t.last)
	t.Pages = append(t.Pages, page)
	t.All = append(t.All, int64(outside+ended.Sub(begun)))
	t.Without = append(t.Without, int64(outside+host))
	t.last = ended
	if len(t.Pages) < faultsInLine {
		return
	}
	line, err := json.Marshal(t)
	if err != nil {
		panic(err)
	}
	ctx.Warningf("mmtimes %s", line)
	// Logging is none of the next one's time.
	*t = threadFaults{last: stepClock(), Pages: t.Pages[:0], All: t.All[:0], Without: t.Without[:0]}
}
