// Claims: nobody waits for more than a step. Who waits for activeMu gets it between two steps; steps
// are as long as they may; memory is committed, and much memory copied, while others go on.

package mm

import (
	"bytes"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

func TestFaultComesAfterOneStep(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(m trapMM, ar hostarch.AddrRange) error
	}{
		{"madvise", func(m trapMM, ar hostarch.AddrRange) error {
			return m.Decommit(ar.Start, uint64(ar.Length()))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTrapMM(t)
			ar := rangeAt(m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base), committedNow), manyPieces)
			elsewhere := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+1<<30))
			first := m.pauseUnmap(rangeAt(ar.Start, pieceSize))
			second := m.pauseUnmap(rangeAt(ar.Start+pieceSize, pieceSize))
			op := spawn(t, c.name, func() error { return c.do(m, ar) })
			first.wait()
			fault := spawn(t, "a fault elsewhere", func() error { return m.fault(elsewhere, hostarch.Write) })
			fault.mustBlock()
			first.resume()
			// The second step stays where it is until the fault is through.
			fault.mustSucceed()
			second.wait()
			second.resume()
			op.mustSucceed()
			m.check()
		})
	}
}

// Who waits for a processor gets one between two steps, and while memory is committed, when no fault has to wait
// for anything else.
func TestStepsLetOthersRun(t *testing.T) {
	const pieces = manyPieces / pieceSize
	for _, c := range []struct {
		name string
		want int
		do   func(m trapMM, ar hostarch.AddrRange) error
	}{
		{"munmap", pieces - 1, func(m trapMM, ar hostarch.AddrRange) error {
			return m.MUnmap(m.ctx, ar.Start, uint64(ar.Length()))
		}},
		{"mprotect", pieces - 1, func(m trapMM, ar hostarch.AddrRange) error {
			return m.MProtect(ar.Start, uint64(ar.Length()), hostarch.Read, false)
		}},
		{"madvise", pieces - 1, func(m trapMM, ar hostarch.AddrRange) error {
			return m.Decommit(ar.Start, uint64(ar.Length()))
		}},
		{"mremap", pieces - 1, func(m trapMM, ar hostarch.AddrRange) error {
			return m.move(ar, ar.Start+1<<30)
		}},
		{"populate", manyPieces / clearNew, func(m trapMM, ar hostarch.AddrRange) error {
			_, err := m.mmap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start+1<<30), committedNow)
			return err
		}},
		{"populate again", pieces - 1 + manyPieces/clearAgain, func(m trapMM, ar hostarch.AddrRange) error {
			if err := m.MUnmap(m.ctx, ar.Start, uint64(ar.Length())); err != nil {
				return err
			}
			_, err := m.mmap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start), committedNow)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTrapMM(t)
			ar := rangeAt(m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base), committedNow), manyPieces)
			times := 0
			testHookLetOthersRun = func() {
				times++
				if !m.activeMu.TryLock() {
					t.Error("they cannot go on: activeMu is locked")
					return
				}
				m.activeMu.Unlock()
			}
			defer func() { testHookLetOthersRun = nil }()
			if err := c.do(m, ar); err != nil {
				t.Fatal(err)
			}
			if times != c.want {
				t.Errorf("others were let run %d times, want %d", times, c.want)
			}
			testHookLetOthersRun = nil
			m.check()
		})
	}
}

// giveAwayBy has these called instead of giving a processor away.
func giveAwayBy(t *testing.T, yields, naps func()) {
	wasYield, wasNap := yield, nap
	yield, nap = yields, naps
	t.Cleanup(func() { yield, nap = wasYield, wasNap })
}

// A processor is given away if somebody has faulted since, and not to threads that only compute.
func TestProcessorsAreGivenToThoseWhoFault(t *testing.T) {
	yields := 0
	count := func() { yields++ }
	giveAwayBy(t, count, count)
	m := newTestMM(t)
	addr := m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base), committedNow)
	elsewhere := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+1<<30))
	m.mustUnmap(addr, manyPieces)
	if yields != 0 {
		t.Errorf("a processor was given away %d times, though nobody faulted", yields)
	}
	m.mustFault(elsewhere, pageSize, hostarch.Write)
	for range 100 {
		m.letOthersRun()
	}
	if yields != recentFaults {
		t.Errorf("a processor was given away %d times after a fault, want %d", yields, recentFaults)
	}
	yields = 0
	for range 100 {
		m.mustFault(elsewhere, pageSize, hostarch.Write)
		m.letOthersRun()
		m.letOthersRun()
	}
	if yields != 200 {
		t.Errorf("a processor was given away %d times while somebody faulted, want each time", yields)
	}
	for range 100 {
		m.letOthersRun()
	}
	yields = 0
	m.ReadMapsDataInto(m.ctx, m.MapsCallbackFuncForBuffer(&bytes.Buffer{}))
	m.letOthersRun()
	if yields != 1 {
		t.Errorf("a processor was given away %d times after maps was read, want once", yields)
	}
	m.mustFault(elsewhere, pageSize, hostarch.Write)
	m.ReadMapsDataInto(m.ctx, m.MapsCallbackFuncForBuffer(&bytes.Buffer{}))
	if yields != 2 {
		t.Errorf("a processor was given away %d times after maps was read beside faults, want twice", yields)
	}
}

// It is given to those who have the sentry copy where each context has threads of its own on the host, and to those only who have done so since.
func TestProcessorsAreGivenToThoseWhoCopy(t *testing.T) {
	for _, ownThreads := range []bool{false, true} {
		yields := 0
		count := func() { yields++ }
		giveAwayBy(t, count, count)
		m := newTestMM(t, onRealMemory)
		m.p.ownThreads = ownThreads
		addr := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), committedNow)
		page := make([]byte, pageSize)
		for name, op := range map[string]func() error{
			"read":              func() error { _, err := m.CopyOut(m.ctx, addr, page, usermem.IOOpts{}); return err },
			"write":             func() error { _, err := m.CopyIn(m.ctx, addr, page, usermem.IOOpts{}); return err },
			"a load of a futex": func() error { _, err := m.LoadUint32(m.ctx, addr, usermem.IOOpts{}); return err },
		} {
			copied := func() {
				t.Helper()
				if err := op(); err != nil {
					t.Fatal(err)
				}
				yields = 0
			}
			copied()
			m.forgetOwn()
			for m.MemoryManager.copies.recent() {
			}
			if m.letOthersRun(); yields != 0 {
				t.Errorf("after %s that is forgotten a processor was given away", name)
			}
			copied()
			for range 100 {
				m.letOthersRun()
			}
			want := 0
			if ownThreads {
				want = recentFaults
			}
			if yields != want {
				t.Errorf("with threads of its own: %t: after %s a processor was given away %d times, want %d", ownThreads, name, yields, want)
			}
		}
		m.check()
	}
}

// Who gives up what he has touched and read has no need to be brief, or to let others have his processor.
func TestOwnFaultsGiveNoProcessorAway(t *testing.T) {
	yields := 0
	count := func() { yields++ }
	giveAwayBy(t, count, count)
	m := newTestMM(t)
	m.p.ownThreads = true
	addr := m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base))
	giveUp := func(n uint64) {
		t.Helper()
		m.mustFault(addr, n, hostarch.Write)
		m.MemoryManager.copies.note()
		m.as.forget()
		if err := m.Decommit(addr, n); err != nil {
			t.Fatal(err)
		}
	}
	giveUp(manyPieces)
	if calls := m.as.history(); len(calls) < 2 || yields != 0 {
		t.Errorf("a processor was given away %d times, and the host called so often:\n%swant several calls, and no processor given away", yields, callString(calls))
	}
	giveUp(pageSize) // others may have faulted: one step of somebody's says nothing
	m.letOthersRun()
	if yields != 1 {
		t.Errorf("after a single step a processor was given away %d times, want once", yields)
	}
	m.check()
}

// Nor has who populates much after he has read something; who populates little says nothing about others.
func TestOwnCopiesGiveNoProcessorAway(t *testing.T) {
	yields := 0
	count := func() { yields++ }
	giveAwayBy(t, count, count)
	m := newTestMM(t, onRealMemory)
	m.p.ownThreads = true
	m.MemoryManager.copies.note()
	m.mustMap(2*populateSize, hostarch.ReadWrite, committedNow)
	if yields != 0 {
		t.Errorf("a processor was given away %d times, though nobody else copied", yields)
	}
	little := rangeAt(m.mustMap(populateSize, hostarch.ReadWrite), populateSize)
	if err := m.Decommit(little.Start, populateSize); err != nil {
		t.Fatal(err)
	}
	m.MemoryManager.copies.note()
	m.populate(m.ctx, little, population{effect: memmap.PlatformEffectCommit})
	if yields != populateSize/clearNew {
		t.Errorf("populating little, a processor was given away %d times, want each time", yields)
	}
	m.check()
}

// An operation that has nothing to unmap forgets nobody's faults.
func TestNothingToUnmapForgetsNoFaults(t *testing.T) {
	m := newTestMM(t)
	touched := m.mustMap(pageSize, hostarch.ReadWrite)
	addr := m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base))
	m.mustFault(touched, pageSize, hostarch.Write)
	if err := m.MProtect(addr, manyPieces, hostarch.Read, false); err != nil {
		t.Fatal(err)
	}
	if !m.MemoryManager.faults.recent() {
		t.Error("a fault was forgotten")
	}
	m.check()
}

// Who gives a processor away has had it for some time before, whoever of the process it was.
func TestProcessorsAreKeptForATurn(t *testing.T) {
	var yields int
	now := time.Unix(1, 0)
	wasClock := stepClock
	stepClock = func() time.Time { return now }
	t.Cleanup(func() { stepClock = wasClock })
	giveAwayBy(t, func() { yields++; now = now.Add(turnTime) }, func() { yields++; now = now.Add(turnTime / readerNaps) })
	m := newTestMM(t)
	addr := m.mustMap(pageSize, hostarch.ReadWrite)
	run := func(times int, d time.Duration) {
		t.Helper()
		for i := range times {
			m.mustFault(addr, pageSize, hostarch.Write)
			now = now.Add(d)
			if i%2 == 0 {
				m.letOthersRun()
			} else {
				m.ReadMapsDataInto(m.ctx, m.MapsCallbackFuncForBuffer(&bytes.Buffer{}))
			}
		}
	}
	run(1, 0)
	if yields != 1 {
		t.Errorf("a processor was given away %d times after the first step, want once", yields)
	}
	run(3, turnTime/4)
	if yields != 1 {
		t.Errorf("a processor was given away %d times before a turn was over, want once", yields)
	}
	run(1, turnTime/4)
	if yields != 2 {
		t.Errorf("a processor was given away %d times after a turn, want twice", yields)
	}
	run(7*8, turnTime/8) // what others had it for does not count
	if yields != 9 {
		t.Errorf("a processor was given away %d times after eight turns, want 9", yields)
	}
	run(1, -time.Hour)
	run(4, turnTime/4)
	if yields != 11 {
		t.Errorf("a processor was given away %d times after the clock was set back, want 11", yields)
	}
}

// Where others wait for the processor, sched_yield gives it to them for long. It is then tried again now and then only, and a nap does meanwhile.
func TestNapsFollowALongYield(t *testing.T) {
	now := time.Unix(1, 0)
	wasClock := stepClock
	stepClock = func() time.Time { return now }
	t.Cleanup(func() { stepClock = wasClock })
	var waits time.Duration // of a yield
	var yields, naps int
	giveAwayBy(t, func() { yields++; now = now.Add(waits) }, func() { naps++; now = now.Add(longYield) })
	var u turn
	turns := func(n int) {
		yields, naps = 0, 0
		for range n {
			now = now.Add(turnTime)
			u.end(turnTime)
		}
	}
	waits = longYield
	if turns(10); yields != 10 || naps != 0 {
		t.Errorf("where nobody waits, ten turns ended with %d yields and %d naps, want yields only", yields, naps)
	}
	waits = longYield + 1
	if turns(1 + napsInARow); yields != 1 || naps != napsInARow {
		t.Errorf("where somebody waits, turns ended with %d yields and %d naps, want one yield and then %d naps", yields, naps, napsInARow)
	}
	if turns(2); yields != 1 || naps != 1 {
		t.Errorf("after these, two turns ended with %d yields and %d naps, want one of each", yields, naps)
	}
	waits = 0
	if turns(napsInARow + 10); yields != 11 {
		t.Errorf("when nobody waits any more, turns ended with %d yields, want 11", yields)
	}
}

// Readers keep it for several times as long as a nap takes, so that they do not sleep for most of the time; but not for long, after a nap that was. Operations do only where each context has threads of its own on the host.
func TestReadersKeepProcessorsForSeveralNaps(t *testing.T) {
	for name, c := range map[string]struct{ nap, readers, operations time.Duration }{
		"a quick nap": {turnTime / readerNaps / 2, turnTime, turnTime},
		"a slow one":  {turnTime / 2, readerNaps * turnTime / 2, ownThreadsNaps * turnTime / 2},
		"a long one":  {time.Second, mostTurnTime, mostTurnTime},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1, 0)
			wasClock := stepClock
			stepClock = func() time.Time { return now }
			t.Cleanup(func() { stepClock = wasClock })
			naps := 0
			giveAwayBy(t, func() { now = now.Add(longYield + 1) }, func() { naps++; now = now.Add(c.nap) })
			m := newTestMM(t)
			read := func() { m.ReadMapsDataInto(m.ctx, m.MapsCallbackFuncForBuffer(&bytes.Buffer{})) }
			after := func(d time.Duration, do func(), want int) {
				t.Helper()
				naps = 0
				now = now.Add(d)
				m.MemoryManager.faults.note()
				do()
				if naps != want {
					t.Errorf("after %v there were %d naps, want %d", d, naps, want)
				}
			}
			after(0, read, 0) // a long yield
			after(mostTurnTime, read, 1)
			for range 2 {
				after(c.readers-1, read, 0)
				after(1, read, 1)
			}
			after(turnTime-1, m.letOthersRun, 0)
			after(1, m.letOthersRun, 1)
			m.p.ownThreads = true
			after(c.operations-1, m.letOthersRun, 0)
			after(1, m.letOthersRun, 1)
		})
	}
}

// withClock has each step take d, and nobody fault.
func withClock(t *testing.T, d time.Duration) {
	for anyFaults.recent() {
	}
	was, now := stepClock, time.Unix(0, 0)
	stepClock = func() time.Time {
		now = now.Add(d)
		return now
	}
	t.Cleanup(func() { stepClock = was })
}

func TestQuickStepsGrow(t *testing.T) {
	withClock(t, stepTime/4)
	const n = 7 * pieceSize
	m := newTestMM(t)
	addr := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), committedNow)
	m.as.forget()
	m.mustUnmap(addr, n)
	if calls := m.as.history(); len(calls) != 3 { // 1, 2 and 4 pieces
		t.Errorf("unmapping 7 pieces, each quick, took these calls:\n%s", callString(calls))
	}
	m.check()
}

func TestSlowStepsShrink(t *testing.T) {
	p := pace{pieces: 8}
	for _, want := range []int{8, 4, 2, 1, 1} {
		if got := p.begin(); got != want {
			t.Errorf("a step has %d pieces, want %d", got, want)
		}
		p.end(stepTime) // the clock of tests says a second
	}
}

func TestStepsAreAsLongAsFits(t *testing.T) {
	withClock(t, quietStepTime*5/4)
	p := pace{pieces: 8}
	p.begin()
	p.end(stepTime)
	if got := p.begin(); got != 6 {
		t.Errorf("a step of 8 pieces took 5/4 of the time, and the next one has %d pieces, want 6", got)
	}
}

// Steps are as long as they may be, which depends on who has to wait for them.
func TestStepsHaveTheirLengths(t *testing.T) {
	const n = 16 * pieceSize
	decommit := func(m *testMM, addr hostarch.Addr) error { return m.Decommit(addr, n) }
	unmap := func(m *testMM, addr hostarch.Addr) error { return m.MUnmap(m.ctx, addr, n) }
	protect := func(m *testMM, addr hostarch.Addr) error { return m.MProtect(addr, n, hostarch.Read, false) }
	type do = func(m *testMM, addr hostarch.Addr) error
	// beside has a thread of other fault while the host does a step: somewhere where nothing is mapped, which takes no time.
	beside := func(other func(m *testMM) *testMM, do do) do {
		return func(m *testMM, addr hostarch.Addr) error {
			o := other(m)
			m.as.on("Unmap", 0, nil, func(any) error {
				if err := o.HandleUserFault(o.ctx, o.base+1<<30, hostarch.Write, 0); err != linuxerr.EFAULT {
					t.Errorf("a fault where nothing is mapped: %v", err)
				}
				return nil
			})
			return do(m, addr)
		}
	}
	besideFaults := func(do do) do { return beside(func(m *testMM) *testMM { return m }, do) }
	besideOthers := func(do do) do { return beside(func(m *testMM) *testMM { return newTestMM(m.t) }, do) }
	afterFaults := func(do do) do {
		return func(m *testMM, addr hostarch.Addr) error {
			m.mustFault(addr, n, hostarch.Write)
			m.as.forget()
			return do(m, addr)
		}
	}
	for _, c := range []struct {
		name string
		took time.Duration // each step
		do   do
		want int
	}{
		{"madvise", stepTime * 9 / 20, decommit, 5}, // 1, 2, 4, 8 and 1 pieces
		{"slow madvise", stepTime * 3 / 4, decommit, 5},
		{"madvise beside faults of another process", stepTime * 9 / 20, besideOthers(decommit), 5},
		{"slow madvise beside faults of another process", stepTime * 3 / 4, besideOthers(decommit), 16},
		{"slow madvise of what was touched", stepTime * 3 / 4, afterFaults(decommit), 5},
		{"mprotect beside faults", protectStepTime * 9 / 20, besideFaults(protect), 5},
		{"slow mprotect beside faults", protectStepTime * 3 / 4, besideFaults(protect), 16},
		{"slow mprotect", protectStepTime * 3 / 4, protect, 5},
		{"munmap beside faults", freeStepTime * 9 / 20, besideFaults(unmap), 5},
		{"slow munmap beside faults", freeStepTime * 3 / 4, besideFaults(unmap), 16},
		{"slow munmap beside faults of another process", freeStepTime * 3 / 4, besideOthers(unmap), 16},
		{"slow munmap of what was touched", freeStepTime * 3 / 4, afterFaults(unmap), 5},
		{"slow munmap", freeStepTime * 3 / 4, unmap, 5},
		{"slow munmap beside readers of maps", freeStepTime * 3 / 4, func(m *testMM, addr hostarch.Addr) error {
			m.ReadMapsDataInto(m.ctx, m.MapsCallbackFuncForBuffer(&bytes.Buffer{}))
			return unmap(m, addr)
		}, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			withClock(t, c.took)
			m := newTestMM(t)
			addr := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), committedNow)
			m.as.forget()
			if err := c.do(m, addr); err != nil {
				t.Fatal(err)
			}
			if calls := m.as.history(); len(calls) != c.want {
				t.Errorf("16 pieces took these calls, want %d:\n%s", c.want, callString(calls))
			}
			m.check()
		})
	}
}

// Where each context has threads of its own on the host, a step may be mostly switching, and is no shorter then. It is longer beside faults of the process than beside those of others.
func TestStepsAreNotMostlySwitching(t *testing.T) {
	const us = time.Microsecond
	const n = 64
	unmap := func(m *testMM, addr hostarch.Addr) error { return m.MUnmap(m.ctx, addr, n*pieceSize) }
	protect := func(m *testMM, addr hostarch.Addr) error { return m.MProtect(addr, n*pieceSize, hostarch.Read, false) }
	for _, c := range []struct {
		name            string
		call, each      time.Duration
		ownThreads, own bool
		do              func(m *testMM, addr hostarch.Addr) error
		want            []int // pieces of the first steps
	}{
		{"switching takes most", 500 * us, 95 * us, true, false, unmap, []int{8, 4, 8, 4, 8}},
		{"and beside faults of the process", 500 * us, 95 * us, true, true, unmap, []int{8, 4, 8, 4, 8}},
		{"in mprotect", 500 * us, 95 * us, true, false, protect, []int{8, 4, 8, 4, 8}},
		{"switching takes some", 50 * us, 90 * us, true, false, unmap, []int{8, 4, 2, 1, 2, 1}},
		{"and beside faults of the process", 50 * us, 90 * us, true, true, unmap, []int{8, 5, 5, 5}},
		{"switching takes nothing", 0, 95 * us, true, false, unmap, []int{8, 4, 2, 1, 1}},
		{"all of a process are one", 500 * us, 95 * us, false, false, unmap, []int{1, 1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Unix(1, 0)
			wasClock := stepClock
			stepClock = func() time.Time { return now }
			t.Cleanup(func() { stepClock = wasClock })
			m := newTestMM(t)
			m.p.ownThreads = c.ownThreads
			o := m
			if !c.own {
				o = newTestMM(t)
			}
			addr := m.mustMap(n*pieceSize, hostarch.ReadWrite, fixedAt(m.base), committedNow)
			m.as.on("Unmap", 0, nil, func(arg any) error {
				pieces := arg.(asCall).ar.Length() / pieceSize
				now = now.Add(c.call + time.Duration(pieces)*c.each)
				if err := o.HandleUserFault(o.ctx, o.base+1<<30, hostarch.Write, 0); err != linuxerr.EFAULT {
					t.Errorf("a fault where nothing is mapped: %v", err)
				}
				return nil
			})
			m.as.forget()
			if err := c.do(m, addr); err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, call := range m.as.history() {
				got = append(got, int(call.ar.Length()/pieceSize))
			}
			if len(got) < len(c.want) || !slices.Equal(got[:len(c.want)], c.want) {
				t.Errorf("steps have %d pieces, want %d first", got, c.want)
			}
			m.as.hooks.armed = nil
			m.check()
		})
	}
}

// Protecting the same memory again and again, or giving it up, begins where it ended.
func TestRepeatedCallsKeepTheirPace(t *testing.T) {
	const n = 4 * pieceSize
	for _, c := range []struct {
		name     string
		do, undo func(m *testMM, addr hostarch.Addr) error
	}{
		{"mprotect", func(m *testMM, addr hostarch.Addr) error {
			return m.MProtect(addr, n, hostarch.Read, false)
		}, func(m *testMM, addr hostarch.Addr) error {
			return m.MProtect(addr, n, hostarch.ReadWrite, false)
		}},
		{"madvise", func(m *testMM, addr hostarch.Addr) error {
			return m.Decommit(addr, n)
		}, func(*testMM, hostarch.Addr) error { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			withClock(t, stepTime/4)
			m := newTestMM(t)
			addr := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), committedNow)
			for _, want := range []int{3, 1} { // 1, 2 and 1 pieces; 4
				m.as.forget()
				if err := c.do(m, addr); err != nil {
					t.Fatal(err)
				}
				if calls := m.as.history(); len(calls) != want {
					t.Errorf("4 pieces, each quick, took these calls, want %d:\n%s", want, callString(calls))
				}
				if err := c.undo(m, addr); err != nil {
					t.Fatal(err)
				}
				m.mustFault(addr, n, hostarch.Write)
			}
			m.check()
		})
	}
}

// What little takes says nothing about much.
func TestProtectingLittleDoesNotChangeThePace(t *testing.T) {
	const n = 4 * pieceSize
	m := newTestMM(t)
	addr := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), committedNow)
	little := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+1<<30))
	protect := func(addr hostarch.Addr, n uint64, perms hostarch.AccessType) {
		t.Helper()
		if err := m.MProtect(addr, n, perms, false); err != nil {
			t.Fatal(err)
		}
	}
	withClock(t, stepTime/4)
	protect(addr, n, hostarch.Read)
	protect(addr, n, hostarch.ReadWrite)
	m.mustFault(addr, n, hostarch.Write)
	withClock(t, time.Second)
	for range 8 {
		m.mustFault(little, pageSize, hostarch.Write)
		protect(little, pageSize, hostarch.NoAccess)
		protect(little, pageSize, hostarch.ReadWrite)
	}
	withClock(t, stepTime/4)
	m.as.forget()
	protect(addr, n, hostarch.Read)
	if calls := m.as.history(); len(calls) != 1 {
		t.Errorf("protecting 4 pieces again took these calls, want one:\n%s", callString(calls))
	}
	m.check()
}

// A protection that takes nothing away has nothing to do at the host, and needs no steps.
func TestLooseningNeedsNoSteps(t *testing.T) {
	m := newTestMM(t)
	const n = 4 * pieceSize
	addr := m.mustMap(n, hostarch.Read, fixedAt(m.base), committedNow)
	m.as.forget()
	steps := 0
	was := stepClock
	stepClock = func() time.Time { steps++; return was() }
	t.Cleanup(func() { stepClock = was })
	if err := m.MProtect(addr, n, hostarch.ReadWrite, false); err != nil {
		t.Fatal(err)
	}
	if calls := m.as.history(); len(calls) != 0 || steps != 0 {
		t.Errorf("%d readings of the clock, want none, and these calls:\n%s", steps, callString(calls))
	}
	m.mustFault(addr, n, hostarch.Write)
	m.check()
}

// Pages that have been mapped stay so when more are made next to them.
func TestFaultMapsWhatItMade(t *testing.T) {
	m := newTestMM(t)
	const n = 4 * hostarch.HugePageSize
	addr := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base))
	for i := hostarch.Addr(0); i < n; i += hostarch.HugePageSize {
		m.as.forget()
		m.mustFault(addr+i, pageSize, hostarch.Write)
		calls := m.as.history()
		if want := rangeAt(addr+i, hostarch.HugePageSize); len(calls) != 1 || calls[0].ar != want {
			t.Errorf("a fault at %#x made these calls, want one for %v:\n%s", addr+i, want, callString(calls))
		}
	}
	m.check()
}

// A step of huge pages populates whole ones, also where less was asked for.
func TestHugePagesArePopulatedAsAWhole(t *testing.T) {
	const huge = hostarch.HugePageSize
	for name, ar := range map[string]hostarch.AddrRange{
		"all":    {Start: 0, End: 3 * huge},
		"a part": {Start: huge, End: huge + 20*pageSize},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t, withFile(newTestFile(t, withHugePages)))
			addr := m.mustMap(3*huge, hostarch.ReadWrite, fixedAt(m.base))
			h := m.callsOf(func() {
				m.populate(m.ctx, rangeAt(addr+ar.Start, uint64(ar.Length())), population{effect: memmap.PlatformEffectCommit})
			})
			if want := max(int(ar.Length())/huge, 1); h.mapFile != want {
				t.Errorf("MapFile was called %d times, want %d:\n%s", h.mapFile, want, callString(h.calls))
			}
			for r, p := range m.pmas.All() {
				if !p.huge || r.Start%huge != 0 || r.End%huge != 0 {
					t.Errorf("at %v there are pages, huge: %t", r, p.huge)
				}
			}
			m.check()
		})
	}
}

func TestCommittedMemoryIsUsed(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	const n = 2*pieceSize + 3*pageSize
	free := false
	testHookCommitted = func() {
		testHookCommitted = nil
		free = m.activeMu.TryLock()
		if free {
			m.activeMu.Unlock()
		}
		if total, err := m.mf.TotalUsage(); err != nil || total == 0 {
			t.Errorf("before the first piece is mapped, the memory file has %#x bytes, %v", total, err)
		}
	}
	t.Cleanup(func() { testHookCommitted = nil })
	addr := m.mustMap(n, hostarch.ReadWrite, committedNow)
	if !free {
		t.Error("activeMu was locked while memory was committed, or none was")
	}
	total, err := m.mf.TotalUsage()
	if err != nil || total < n {
		t.Errorf("the memory file has %#x bytes, %v, want %#x at least", total, err, n)
	}
	m.mustRead(addr+n-8, "\x00\x00\x00\x00\x00\x00\x00\x00")
	m.check()
}

// Somebody else has filled the hole meanwhile: what was committed for it is given back, and his pages stay.
func TestCommittedMemoryThatCameTooLateIsGivenBack(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(m *testMM, addr hostarch.Addr)
		want string
	}{
		{"fault", func(m *testMM, addr hostarch.Addr) { m.mustWrite(addr+pageSize, "early") }, "early"},
		{"munmap of a part", func(m *testMM, addr hostarch.Addr) { m.mustUnmap(addr+4*pageSize, pageSize) }, zeroes(5)},
		{"munmap of all", func(m *testMM, addr hostarch.Addr) {
			m.mustUnmap(addr, 2*pieceSize)
			m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(addr))
		}, zeroes(5)},
		{"munmap of the piece", func(m *testMM, addr hostarch.Addr) {
			m.mustUnmap(addr, pieceSize)
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(addr+pageSize))
		}, zeroes(5)},
		{"replaced", func(m *testMM, addr hostarch.Addr) {
			m.mustMap(pieceSize, hostarch.Read, fixedAt(addr))
		}, zeroes(5)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTestMM(t, onRealMemory)
			addr := m.mustMap(2*pieceSize, hostarch.ReadWrite, fixedAt(m.base))
			testHookCommitted = func() {
				testHookCommitted = nil
				c.do(m, addr)
			}
			t.Cleanup(func() { testHookCommitted = nil })
			m.populate(m.ctx, rangeAt(addr, 2*pieceSize), population{effect: memmap.PlatformEffectCommit})
			m.mustRead(addr+pageSize, c.want)
			m.check()
			m.exit() // says what is left in the memory file
		})
	}
}

// A hookedReader calls do in the middle of a copy.
type hookedReader struct {
	data *bytes.Reader
	do   func()
}

func (r hookedReader) Read(p []byte) (int, error) {
	if r.do != nil && r.data.Len() == int(r.data.Size()) {
		r.do()
	}
	return r.data.Read(p)
}

// copyOut copies n bytes x to addr, and calls do when the pages are known, and nothing has been copied.
func (m *testMM) copyOut(addr hostarch.Addr, n int, do func()) error {
	src := hookedReader{bytes.NewReader(bytes.Repeat([]byte{'x'}, n)), do}
	got, err := m.CopyOutFrom(m.ctx, hostarch.AddrRangeSeqOf(rangeAt(addr, uint64(n))), safemem.FromIOReader{Reader: src}, usermem.IOOpts{})
	if err == nil && int(got) != n {
		err = io.ErrShortWrite
	}
	return err
}

const largeCopy = 2 * holdMin

// Both when the pages have to be made and when they are there.
func TestLargeCopyKeepsNobodyWaiting(t *testing.T) {
	m := newTrapMM(t, onRealMemory)
	addr := m.mustMap(largeCopy, hostarch.ReadWrite)
	for range 2 {
		other := m.mustMap(pageSize, hostarch.ReadWrite)
		err := m.copyOut(addr, largeCopy, func() {
			spawn(t, "fault", func() error { return m.fault(other, hostarch.Write) }).mustSucceed()
			spawn(t, "munmap", func() error { return m.MUnmap(m.ctx, other, pageSize) }).mustSucceed()
		})
		if err != nil {
			t.Fatal(err)
		}
		m.mustLoad(addr+largeCopy-5, "xxxxx")
		m.check()
	}
}

// The pages are not somebody else's before the copy is done.
func TestLargeCopyToPagesThatGo(t *testing.T) {
	m := newTrapMM(t, onRealMemory)
	addr := m.mustMap(largeCopy, hostarch.ReadWrite, committedNow)
	var next hostarch.Addr
	err := m.copyOut(addr, largeCopy, func() {
		m.mustUnmap(addr, largeCopy)
		next = m.mustMap(largeCopy, hostarch.ReadWrite, committedNow)
	})
	if err != nil {
		t.Fatal(err)
	}
	for off := hostarch.Addr(0); off < largeCopy; off += pageSize {
		m.mustLoad(next+off, zeroes(4))
	}
	m.check()
	m.exit()
}

// What is copied while the process forks is the parent's, whoever writes first afterwards.
func TestForkDuringLargeCopy(t *testing.T) {
	m := newTrapMM(t, onRealMemory)
	addr := m.mustMap(largeCopy, hostarch.ReadWrite, committedNow)
	m.mustWrite(addr, "old")
	var child *testMM
	err := m.copyOut(addr, largeCopy, func() {
		child = m.fork()
		m.mustWrite(addr+pageSize, "parent") // would go to a copy, if the pages were copy-on-write
	})
	if err != nil {
		t.Fatal(err)
	}
	m.mustRead(addr, "xxx")
	m.mustRead(addr+pageSize, "xxx")
	child.mustRead(addr, "old")
	child.mustRead(addr+pageSize, zeroes(3))
	m.check()
	child.check()
}

// Pages of a file may be wanted back by the file. Invalidate waits for who copies to them.
func TestInvalidateWaitsForLargeCopyToSharedPages(t *testing.T) {
	m := newTrapMM(t, onRealMemory)
	f := newTestMappable(t, m.mf, largeCopy)
	addr := m.mustMap(largeCopy, hostarch.ReadWrite, sharedFile(f, 0))
	var k *task
	err := m.copyOut(addr, largeCopy, func() {
		k = spawn(t, "Invalidate", func() error {
			m.Invalidate(rangeAt(addr, largeCopy), memmap.InvalidateOpts{})
			return nil
		})
		k.mustBlock()
	})
	if err != nil {
		t.Fatal(err)
	}
	k.mustSucceed()
	m.check()
}

// The first write after a fork copies little, for it may stay the only one; each that is near the one before copies twice
// as much.
func TestFirstWriteAfterForkCopiesLittle(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	const n = 2 * hostarch.HugePageSize
	addr := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), committedNow)
	child := m.fork()
	shared := func() (n uint64) {
		for r, p := range m.pmas.All() {
			if p.needCOW {
				n += r.Len()
			}
		}
		return n
	}
	m.mustFault(addr+hostarch.HugePageSize+copyUnit, pageSize, hostarch.Write)
	if got := n - shared(); got != copyUnit {
		t.Errorf("the first write copied %#x bytes, want %#x", got, copyUnit)
	}
	m.mustFault(addr+hostarch.HugePageSize+4*copyUnit, pageSize, hostarch.Write)
	if got := n - shared(); got != 3*copyUnit {
		t.Errorf("after the second write %#x bytes are copied, want %#x", got, 3*copyUnit)
	}
	m.mustFault(addr+hostarch.HugePageSize+8*copyUnit, pageSize, hostarch.Write)
	if got := n - shared(); got != 7*copyUnit {
		t.Errorf("after the third write %#x bytes are copied, want %#x", got, 7*copyUnit)
	}
	again := m.fork()
	was := shared()
	m.mustFault(addr+hostarch.HugePageSize+16*copyUnit, pageSize, hostarch.Write)
	if got := was - shared(); got != copyUnit {
		t.Errorf("the first write after another fork copied %#x bytes, want %#x", got, copyUnit)
	}
	again.check()
	m.check()
	child.check()
}

// A large copy is made in blocks after each of which Go can stop the goroutine: of all the memory, in order, and
// of no more blocks than the host takes at once.
func TestLargeCopyIsMadeInShortBlocks(t *testing.T) {
	for _, size := range []uint64{4 << 10, blockUnit, blockUnit + pageSize, 5*pieceSize + 3*pageSize} {
		m := newTrapMM(t)
		addr := m.mustMap(size, hostarch.ReadWrite)
		m.mustStore(addr+hostarch.Addr(size)-pageSize, "the end")
		for _, from := range []string{"fresh", "ready"} {
			var all safemem.BlockSeq
			ar := hostarch.AddrRange{Start: addr, End: addr + hostarch.Addr(size)}
			n, err := m.withMappings(m.ctx, ar, hostarch.Write, usermem.IOOpts{}, func(blocks safemem.BlockSeq) (uint64, error) {
				all = blocks
				return blocks.NumBytes(), nil
			})
			if err != nil || n != int64(size) {
				t.Fatalf("%d bytes, %s: %d bytes, %v", size, from, n, err)
			}
			var longest int
			for rest := all; !rest.IsEmpty(); rest = rest.Tail() {
				longest = max(longest, rest.Head().Len())
			}
			if longest > blockUnit {
				t.Errorf("%d bytes, %s: a block of %d bytes", size, from, longest)
			}
			last := make([]byte, 7)
			safemem.CopySeq(safemem.BlockSeqOf(safemem.BlockFromSafeSlice(last)), all.DropFirst64(size-pageSize))
			if string(last) != "the end" {
				t.Errorf("%d bytes, %s: the last page has %q", size, from, last)
			}
		}
	}
	huge, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(huge)
	if n := cutBlocks(safemem.BlockSeqOf(safemem.BlockFromSafeSlice(huge))).NumBlocks(); n != mostBlocks {
		t.Errorf("a gigabyte has %d blocks, want %d", n, mostBlocks)
	}
}

// A goroutine that copies much keeps its thread, and gives it up when it is done. One that copies little may move.
func TestLargeCopyKeepsItsThread(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))) // with one there is nowhere to go
	m := newTestMM(t, onRealMemory)
	for _, c := range []struct {
		size  uint64
		keeps bool
	}{{blockUnit, false}, {blockUnit + pageSize, true}} {
		ar := rangeAt(m.mustMap(c.size, hostarch.ReadWrite), c.size)
		for _, from := range []string{"fresh", "ready"} {
			if _, err := m.withMappings(m.ctx, ar, hostarch.Write, usermem.IOOpts{}, func(blocks safemem.BlockSeq) (uint64, error) {
				if times := goesOn(c.keeps); moves(times) == c.keeps {
					t.Errorf("%d bytes, %s: keeps its thread, %d times: %v", c.size, from, times, !c.keeps)
				}
				return blocks.NumBytes(), nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if !moves(goesOn(false)) {
			t.Errorf("after %d bytes the thread is still kept", c.size)
		}
	}
	m.check()
}

// goesOn is how often to see a goroutine go on: some times if it is to keep its thread, and otherwise until it does not.
func goesOn(keeps bool) int {
	if keeps {
		return 500
	}
	return 1_000_000
}

// moves returns whether the goroutine, which goes on so often after others, gets to another thread.
func moves(times int) bool {
	stop := make(chan struct{})
	defer close(stop)
	for range 4 * runtime.GOMAXPROCS(0) {
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		}()
	}
	thread := unix.Gettid()
	for range times {
		if runtime.Gosched(); unix.Gettid() != thread {
			return true
		}
	}
	return false
}
