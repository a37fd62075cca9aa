package mm

import (
	"math"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// stepTime is about how long one step of host work may take that is done with activeMu locked, while somebody faults. What a piece costs depends on how much of it
// the host has really mapped: 2 MiB take 10 microseconds if it is one page, and 90 to 150 if it is all
// (BenchmarkUnmapStep). So steps that turn out to be short are made longer; one piece is the least. A fault
// that waits for one step then takes a few times as long as one that does not, and a step takes many times
// what a host call costs that does nothing (7 microseconds on systrap). With 350 instead of 200, the p99 of faults beside mprotect, which held it then, and madvise of
// 64 MiB was 5 and 7 times that of faults beside nothing, instead of 3 and 4.
const stepTime = 200 * time.Microsecond

// freeStepTime is the same for steps that are done with no lock held, and unmap all that there is. A fault waits for them only where the platform carries out one call after the
// other. Beside munmap of 1 GiB, with 100, 150, 200 and 250 microseconds, on a machine where 2 MiB take 90 to 150; stock's munmap is done 12.7 times a second:
//
//	p99 of faults, microseconds, systrap   227   289   373   446
//	munmaps a second, systrap             17.6  17.0  18.8  18.5
//	p99 of faults, microseconds, ptrace    295   394   483   543
//	munmaps a second, ptrace              14.5  14.5  15.2  15.7
const freeStepTime = 100 * time.Microsecond

// ownThreadsStepTime is what such steps, and those of mprotect, take where each context has threads of its own on the host, as on ptrace, beside faults of the same process: there the host's scheduler switches several times for each step, and
// for each fault between two of them. With 100 and 400 microseconds, 500 and 600; stock's is done 14.3 times a second, and faults wait for all of it:
//
//	p99 of faults, microseconds, ptrace   508  1249  1644  1887
//	munmaps a second, ptrace             10.6  15.7  16.7  17.5
const ownThreadsStepTime = 500 * time.Microsecond

// ownThreadsPieces is how many pieces the first of such steps has there. It tells how long one takes if there are many: on a machine with slow page faults a step of one takes 0.6 milliseconds, and one of eight 1.3. With 1, 8 and 16, and with steps that are never
// shorter than 8; stock's munmap of 1 GiB is done 21.6, 21.8 and 13.1 times a second, and faults of the same process wait for all of it:
//
//	munmaps a second, beside faults                 11.1  15.8  16.7  16.7
//	p99 of these faults, microseconds               2521  2879  3297  3932
//	munmaps a second, beside 10 lines of maps       12.6  13.6  11.1  15.4
//	munmaps a second, beside faults of another       9.4  11.6  10.8  15.2
//	p99 of these faults, microseconds               1954  2000  2310  2243
//
// Where switching is quick, steps of 8 would be long for faults of other processes: see anyFaults.
const ownThreadsPieces = 8

// protectStepTime is the same for steps of mprotect. Those that have been protected lately often have little mapped: what they take is the call. Beside mprotect of 64 MiB, with 100,
// 250, 500 and 1000 microseconds; stock's has 2540 a second, and a p99 of 424:
//
//	p99 of faults, microseconds   247   253   261   269
//	calls a second               1670  2100  2100  2140
const protectStepTime = 250 * time.Microsecond

// quietStepTime is the same while nobody faults, in any process (anyFaults). Who comes then waits a few times as long, once; beside madvise, which holds activeMu meanwhile, too. Everybody else waits for nothing,
// but takes the processor between steps: beside a thread that reads and writes, on ptrace, munmap of 1 GiB took 141 milliseconds with steps of
// 300 microseconds, 105 with 600 microseconds, 84 with 1200, and stock's 98.
const quietStepTime = time.Millisecond

// Tests have clocks of their own, and begin with a single piece.
var (
	// firstPieces is how many pieces the first step has: they take about stepTime if the host has mapped
	// all of them.
	firstPieces = 2

	stepClock = time.Now
)

// A pace says how many pieces the next step should do.
type pace struct {
	pieces int
	begun  time.Time

	// most is how many pieces a step has that is mostly work, 0 if any is; each is how long a piece took in the last one with as many.
	most int
	each time.Duration
}

// begin begins a step and returns how many pieces it may do.
func (p *pace) begin() int {
	if p.pieces == 0 {
		p.pieces = firstPieces
	}
	p.begun = stepClock()
	return p.pieces
}

// mostGrowth is how much longer a step may be than the one before. It may meet more of what is mapped. Beside mprotect of
// 64 MiB, with 2, 8 and 64:
//
//	p99 of faults, microseconds   540   600   820
//	calls a second               1540  1340  1230
//
// Beside munmap of 1 GiB and madvise of 64 MiB there was no difference.
const mostGrowth = 2

// end ends a step. The next one is as long as fits into busy if somebody faults, in any process, and into quietStepTime otherwise, but no less than half of this one: that may have been kept waiting for a
// processor rather than by its work. If it took more than a third longer than its pieces do in one of most or more, the next one is twice as long.
func (p *pace) end(busy time.Duration) {
	took := max(stepClock().Sub(p.begun), 1)
	length := quietStepTime
	if anyFaults.recent() {
		length = busy
	}
	fits := int(min(length*time.Duration(p.pieces)/took, mapChunk/pieceSize))
	least := max(p.pieces/2, 1)
	switch n := time.Duration(p.pieces); {
	case p.pieces >= p.most:
		p.each = took / n
	case took > n*p.each*4/3:
		least = mostGrowth * p.pieces
	}
	p.pieces = max(min(fits, mostGrowth*p.pieces), least)
}

// A lastPace is where the next operation of a kind begins. Of several at a time, the last to end says.
type lastPace struct{ pieces atomic.Int32 }

// mostResumed is the most pieces that a first step has: three milliseconds if the host has mapped all of them now,
// once. With half of it, a loop over mprotect of 64 MiB, of which little is mapped, had 0.6 of stock's throughput.
const mostResumed = 32

// resume returns the pace that was kept.
func (l *lastPace) resume() pace { return pace{pieces: int(l.pieces.Load())} }

// keep keeps p for the next time.
func (l *lastPace) keep(p pace) { l.pieces.Store(int32(min(p.pieces, mostResumed))) }

// inSteps removes what the host has mapped of pages, a bounded step at a time. It holds no lock that a fault waits for: what a fault
// waits for is one step in the platform, if that carries out one after the other what it is asked for. Steps reach over all of within, which has no
// pages but these, so that platforms that keep page tables can drop whole ones.
//
// Preconditions: mappingMu is locked; activeMu is not. The pages lie in within, which the caller has frozen.
func (mm *MemoryManager) inSteps(pages *takenPMAs, within hostarch.AddrRange) {
	if pages.Len() == 0 {
		return
	}
	all := hullOf(pages)
	if within = within.Intersect(mm.userRange()); within.Length() != 0 {
		all = hostarch.AddrRange{Start: min(all.Start, within.Start), End: max(all.End, within.End)}
	}
	if all.Length() <= pieceSize {
		mm.unmapHost(all) // most of the time
		return
	}
	pieces := hostPieces(pages)
	pieces[0].Start, pieces[len(pieces)-1].End = all.Start, all.End
	mm.unmapInSteps(pieces, &pace{}, freeStepTime)
}

// ownThreads returns whether each context has threads of its own on the host.
func (mm *MemoryManager) ownThreads() bool { return mm.p.ConcurrencyCount() == math.MaxInt }

// unmapInSteps removes what the host has mapped in pieces, and between them, as inSteps does, in steps as p says, which take busy while somebody faults, or ownThreadsStepTime if that is more and where it applies. What a single piece takes says nothing about many, so p stays as it is.
//
// Preconditions: as for unmapHost, without activeMu. The pieces are in address order.
func (mm *MemoryManager) unmapInSteps(pieces []hostarch.AddrRange, p *pace, busy time.Duration) {
	switch len(pieces) {
	case 0:
		return
	case 1:
		mm.unmapHost(pieces[0])
		return
	}
	own := mm.ownThreads()
	if own && p.most == 0 {
		p.most = ownThreadsPieces
		p.pieces = max(p.pieces, p.most)
	}
	mm.forgetOwn()
	for len(pieces) != 0 {
		n := min(p.begin(), len(pieces))
		mm.unmapHost(hostarch.AddrRange{Start: pieces[0].Start, End: pieces[n-1].End})
		length := busy
		if own && mm.faults.recent() {
			length = max(busy, ownThreadsStepTime)
		}
		p.end(length)
		if pieces = pieces[n:]; len(pieces) != 0 {
			mm.letCallersFirst()
		}
	}
}
