package mm

import (
	"cmp"
	"hash/maphash"
	"math"
	"slices"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// A process that forks again and again writes to the same pages after each fork: its stacks, counters, what its runtime keeps. Each
// costs a fault, which takes longer than a copy and two calls of the host's. So a fork copies such pages, and nobody faults for them. Whether a page is still written to, its contents tell.
//
// If there are other threads, they must not write to such a page before it is copied, and the host maps it again then. So it does not matter which of the two the parent goes on with, and it
// takes the copies: these lie one after the other, and with the few pages in between, which were apart once one of them was copied on write, they are one pma, and one call. Most
// threads need the same pages first, after each fork: those that faulted come first the next time, in that order.

const (
	// mostHot is how many of them are remembered at most.
	mostHot = 32

	// mostGap is how many pages between two of them are copied, too, at most, and mostCopied how many pages are copied then. A loop over fork beside a thread that faults, on a machine with slow page
	// faults, to what it was with a copy and a call for each page, and none in between (8 pairs each, and 32 pages in three comparisons). The thread faulted 2.6 times for each page that it wanted, and 12 times for those
	// around its p99; with 32 pages in between it is 1.25 and 4.5 times:
	//
	//	pages in between      8     16     32     64
	//	pages in all        128    256    256    512
	//	p99 of its faults  0.90   0.91   0.70   0.65
	//	time of a fork     0.91   0.96   1.03   1.42
	mostGap    = 32
	mostCopied = 256

	// mostIdle is after how many forks in a row that found a page as it was, or did not copy it, it is forgotten.
	mostIdle = 2
)

// hotPages are pages that were written to after a fork. activeMu guards them.
type hotPages struct {
	pages []hotPage // in address order

	// faults is how many faults there were on them since the last fork.
	faults int
}

// hotPage is one of them.
type hotPage struct {
	addr hostarch.Addr
	sum  uint64 // of what was copied last
	idle int    // see mostIdle
	turn int    // how many faults there had been when it faulted last
}

func (p hotPage) compare(addr hostarch.Addr) int {
	return cmp.Compare(p.addr, addr)
}

// find returns where the page at addr is or would be.
//
// Preconditions: activeMu is locked.
func (h *hotPages) find(addr hostarch.Addr) (i int, known bool) {
	return slices.BinarySearchFunc(h.pages, addr, hotPage.compare)
}

// wrote notes a write to the page at addr, which was copy-on-write.
//
// Preconditions: activeMu is locked for writing.
func (h *hotPages) wrote(addr hostarch.Addr) {
	addr = addr.RoundDown()
	i, known := h.find(addr)
	switch {
	case known:
		h.pages[i].idle = 0
	case len(h.pages) < mostHot:
		h.pages = slices.Insert(h.pages, i, hotPage{addr: addr, turn: h.faults})
	}
}

// faulted notes a fault on the page at addr, which may be one of h.
//
// Preconditions: activeMu is locked for writing. addr is page-aligned.
func (h *hotPages) faulted(addr hostarch.Addr) {
	if len(h.pages) == 0 {
		return
	}
	if i, known := h.find(addr); known {
		h.pages[i].turn = h.faults
		h.faults++
	}
}

// sort sorts parts, so that those come first that have the pages of h that faulted first.
//
// Preconditions: activeMu is locked.
func (h *hotPages) sort(parts []mappedPart) {
	turn := func(p mappedPart) int {
		first := math.MaxInt
		for i, _ := h.find(p.start); i < len(h.pages) && h.pages[i].addr < p.at().End; i++ {
			first = min(first, h.pages[i].turn)
		}
		return first
	}
	slices.SortStableFunc(parts, func(a, b mappedPart) int { return cmp.Compare(turn(a), turn(b)) })
}

// runs returns where pages of h lie, in address order, together with those between two of them, if these are no more than gap, or fewer if that were
// more than mostCopied.
//
// Preconditions: activeMu is locked.
func (h *hotPages) runs(gap int) []hostarch.AddrRange {
	for ; ; gap /= 2 {
		var runs []hostarch.AddrRange
		total := hostarch.Addr(0)
		for _, p := range h.pages {
			end := p.addr + hostarch.PageSize
			if n := len(runs); n != 0 && p.addr-runs[n-1].End <= hostarch.Addr(gap)*hostarch.PageSize {
				total += end - runs[n-1].End
				runs[n-1].End = end
			} else {
				total += hostarch.PageSize
				runs = append(runs, hostarch.AddrRange{Start: p.addr, End: end})
			}
		}
		if gap == 0 || total <= mostCopied*hostarch.PageSize {
			return runs
		}
	}
}

// in returns the first pages in ar, one after the other.
//
// Preconditions: activeMu is locked. ar is page-aligned.
func (h *hotPages) in(ar hostarch.AddrRange) (pages hostarch.AddrRange, ok bool) {
	i, _ := h.find(ar.Start)
	if i == len(h.pages) || h.pages[i].addr >= ar.End {
		return
	}
	pages = hostarch.AddrRange{Start: h.pages[i].addr, End: h.pages[i].addr}
	for ; i < len(h.pages) && h.pages[i].addr == pages.End && pages.End < ar.End; i++ {
		pages.End += hostarch.PageSize
	}
	return pages, true
}

var hotSeed = maphash.MakeSeed()

// copied notes that a fork copied the page at addr, in which there is data.
//
// Preconditions: activeMu is locked for writing. The page is one of h.
func (h *hotPages) copied(addr hostarch.Addr, data []byte) {
	i, _ := h.find(addr)
	if p, sum := &h.pages[i], maphash.Bytes(hotSeed, data); sum != p.sum {
		p.sum, p.idle = sum, -1 // until forked
	}
}

// forked notes that a fork has copied what it copies.
//
// Preconditions: activeMu is locked for writing.
func (h *hotPages) forked() {
	h.faults = 0
	for i := range h.pages {
		h.pages[i].idle++
	}
	h.pages = slices.DeleteFunc(h.pages, func(p hotPage) bool { return p.idle >= mostIdle })
}
