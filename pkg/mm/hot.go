package mm

import (
	"cmp"
	"hash/maphash"
	"slices"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// A process that forks again and again writes to the same pages after each fork: its stacks, counters, what its runtime keeps. Each
// costs a fault, which takes longer than a copy and two calls of the host's. So a fork copies such pages for the child, and
// the parent goes on with its own. Whether a page is still written to, its contents tell.

const (
	// mostHot is how many pages a fork copies at most.
	mostHot = 32

	// mostIdle is after how many forks in a row that found a page as it was, or did not copy it, it is forgotten.
	mostIdle = 2
)

// hotPages are pages that were written to after a fork, in address order. activeMu guards them.
type hotPages []hotPage

// hotPage is one of them.
type hotPage struct {
	addr hostarch.Addr
	sum  uint64 // of what was copied last
	idle int    // see mostIdle
}

func (p hotPage) compare(addr hostarch.Addr) int {
	return cmp.Compare(p.addr, addr)
}

// wrote notes a write to the page at addr, which was copy-on-write.
//
// Preconditions: activeMu is locked for writing.
func (h *hotPages) wrote(addr hostarch.Addr) {
	addr = addr.RoundDown()
	i, known := slices.BinarySearchFunc(*h, addr, hotPage.compare)
	switch {
	case known:
		(*h)[i].idle = 0
	case len(*h) < mostHot:
		*h = slices.Insert(*h, i, hotPage{addr: addr})
	}
}

// in returns the first pages in ar, one after the other.
//
// Preconditions: activeMu is locked. ar is page-aligned.
func (h hotPages) in(ar hostarch.AddrRange) (pages hostarch.AddrRange, ok bool) {
	i, _ := slices.BinarySearchFunc(h, ar.Start, hotPage.compare)
	if i == len(h) || h[i].addr >= ar.End {
		return
	}
	pages = hostarch.AddrRange{Start: h[i].addr, End: h[i].addr}
	for ; i < len(h) && h[i].addr == pages.End && pages.End < ar.End; i++ {
		pages.End += hostarch.PageSize
	}
	return pages, true
}

var hotSeed = maphash.MakeSeed()

// copied notes that a fork copied the page at addr, in which there is data.
//
// Preconditions: activeMu is locked for writing. The page is one of h.
func (h hotPages) copied(addr hostarch.Addr, data []byte) {
	i, _ := slices.BinarySearchFunc(h, addr, hotPage.compare)
	if sum := maphash.Bytes(hotSeed, data); sum != h[i].sum {
		h[i].sum, h[i].idle = sum, -1 // until forked
	}
}

// forked notes that a fork has copied what it copies.
//
// Preconditions: activeMu is locked for writing.
func (h *hotPages) forked() {
	for i := range *h {
		(*h)[i].idle++
	}
	*h = slices.DeleteFunc(*h, func(p hotPage) bool { return p.idle >= mostIdle })
}
