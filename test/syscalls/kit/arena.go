package kit

import (
	"fmt"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PageSize is that of the machine; HugeSize that of a huge page where pages have 4 KiB.
var PageSize = unix.Getpagesize()

const HugeSize = 2 << 20

// ArenaBase is where arenas are. Go's heap begins anywhere in the first 46 bits of the address space,
// executables are at its bottom or in its upper third, and the kernel goes from the top down: nobody
// comes here unasked, what a test unmaps stays free, and addresses are the same everywhere. It is
// aligned to more than a huge page.
const ArenaBase = 0x4100_0000_0000

// An Arena is a range of addresses that is a test's own. It begins unmapped, and everything in it is
// unmapped after the test. One exists at a time.
type Arena struct {
	Base  uintptr
	Pages int
}

// NewArena is an arena of so many pages, with nothing mapped in it or anywhere near.
func NewArena(t testing.TB, pages int) *Arena {
	t.Helper()
	a := &Arena{Base: ArenaBase, Pages: pages}
	length := uintptr(pages+2) * uintptr(PageSize)
	claim := Me.Mmap(a.Base-uintptr(PageSize), length, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_FIXED_NOREPLACE, -1, 0)
	if !claim.OK() {
		t.Fatalf("the arena's addresses are in use: %v", claim)
	}
	t.Cleanup(func() { a.clear(t) })
	a.clear(t)
	return a
}

func (a *Arena) clear(t testing.TB) {
	if e := Me.Munmap(a.Base-uintptr(PageSize), uintptr(a.Pages+2)*uintptr(PageSize)); e != 0 {
		t.Fatalf("unmapping the arena: %v", e)
	}
}

// Page is the address of a page. Pages -1 and a.Pages are outside, and unmapped.
func (a *Arena) Page(i int) uintptr { return a.Base + uintptr(i*PageSize) }

// End is the address after the last page.
func (a *Arena) End() uintptr { return a.Page(a.Pages) }

// Len is the length of so many pages.
func Len(pages int) uintptr { return uintptr(pages * PageSize) }

// Anon maps pages [i, i+n) private and anonymous, over what is there. flags are added.
func (a *Arena) Anon(t testing.TB, i, n, prot, flags int) {
	t.Helper()
	a.Map(t, i, n, prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|flags, -1, 0)
}

// Map maps pages [i, i+n), over what is there. offset is in pages.
func (a *Arena) Map(t testing.TB, i, n, prot, flags, fd, offset int) {
	t.Helper()
	r := Me.Mmap(a.Page(i), Len(n), prot, flags|unix.MAP_FIXED, fd, int64(Len(offset)))
	if !r.OK() {
		t.Fatalf("mmap of pages [%d,%d): %v", i, i+n, r)
	}
}

// Fill stores in the first byte of each page [i, i+n) the byte first, first+1 and so on.
func (a *Arena) Fill(t testing.TB, i, n int, first byte) {
	t.Helper()
	for k := range n {
		if access := Me.Store(a.Page(i+k), first+byte(k)); access.Faulted() {
			t.Fatalf("writing to page %d: %v", i+k, access)
		}
	}
}

// Bytes is what an actor finds at the first byte of each page [i, i+n): in hexadecimal, or the name of
// the signal, with its code if that tells something (SIGBUS has one that matters here).
func (a *Arena) Bytes(actor *Actor, i, n int) []string {
	var found []string
	for k := range n {
		access := actor.Load(a.Page(i + k))
		switch {
		case access.Signal == unix.SIGBUS:
			found = append(found, "SIGBUS")
		case access.Faulted():
			found = append(found, access.SignalName())
		default:
			found = append(found, fmt.Sprintf("%02x", access.Value))
		}
	}
	return found
}

// Where is an address as a test wants to show it: "p3+0x10" in the arena, "outside" elsewhere.
func (a *Arena) Where(addr uintptr) string {
	if addr < a.Base || addr > a.End() {
		return "outside"
	}
	page, rest := (addr-a.Base)/uintptr(PageSize), (addr-a.Base)%uintptr(PageSize)
	if rest == 0 {
		return fmt.Sprintf("p%d", page)
	}
	return fmt.Sprintf("p%d+%#x", page, rest)
}

// Describe is Access.String with the address relative to the arena.
func (a *Arena) Describe(access Access) string {
	if !access.Faulted() {
		return access.String()
	}
	return access.SignalName() + " at " + a.Where(access.Addr)
}

// Memory is pages [i, i+n) as a slice, for what Go can do with it without a fault.
func (a *Arena) Memory(i, n int) []byte {
	addr := a.Page(i)
	// Not a Go object: the conversion keeps nothing alive, and the collector ignores the address.
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&addr)), n*PageSize)
}
