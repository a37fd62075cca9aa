package program

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// PageSize and HugeSize are those of the machines that programs are for.
const (
	PageSize = 4096
	HugeSize = 2 << 20
)

// The arena is where programs have their mappings: three huge pages, and nothing else anywhere near.
// ArenaBase is kit's, so that addresses in tests and programs are the same.
const (
	ArenaBase  = 0x4100_0000_0000
	ArenaPages = 3 * HugeSize / PageSize
)

// HeapPages is how far above its beginning programs use the heap.
const HeapPages = 16

// An Address is relative to something that differs between machines. Of its 64 bits the highest 12
// say what it is relative to, and the others hold the distance in bytes, which may be negative.
type Address int64

// What an Address is relative to: nothing, the arena, the heap's beginning, or a slot from FirstSlot
// on.
const (
	Absolute = iota
	Arena
	Heap
	FirstSlot
)

const distanceBits = 52

// At is an address so many bytes behind the beginning of a region.
func At(region int, distance int64) Address {
	return Address(int64(region)<<distanceBits + distance)
}

// Page is the address of a page of the arena.
func Page(i int) Address { return At(Arena, int64(i)*PageSize) }

// Region is what the address is relative to.
func (a Address) Region() int { return int((a + 1<<(distanceBits-1)) >> distanceBits) }

// Distance is how many bytes from the region's beginning it is.
func (a Address) Distance() int64 { return int64(a) - int64(a.Region())<<distanceBits }

// IsSlot reports whether the address is relative to a slot.
func (a Address) IsSlot() bool { return a.Region() >= FirstSlot }

// Slot is the number of its slot.
func (a Address) Slot() int { return a.Region() - FirstSlot }

// String is "p3" for a page of the arena, "b+0x1000" for one of the heap, "m0+0x8" for a slot's, and
// "0x10" for others.
func (a Address) String() string {
	distance := a.Distance()
	switch a.Region() {
	case Absolute:
		return fmt.Sprintf("%#x", distance)
	case Arena:
		page, rest := distance/PageSize, distance%PageSize
		if rest < 0 {
			page, rest = page-1, rest+PageSize
		}
		return fmt.Sprintf("p%d", page) + more(rest)
	case Heap:
		return "b" + more(distance)
	default:
		return fmt.Sprintf("m%d", a.Slot()) + more(distance)
	}
}

func more(distance int64) string {
	if distance == 0 {
		return ""
	}
	return fmt.Sprintf("%+#x", distance)
}

// CutRange returns the two addresses of a range, as in "p3-p5".
func CutRange(text string) (start, end string) {
	// A hyphen may also be in front of a number: p-1, m0-0x8.
	for i := 1; i < len(text)-1; i++ {
		if text[i] == '-' && strings.IndexByte("pbm", text[i+1]) >= 0 {
			return text[:i], text[i+1:]
		}
	}
	return text, ""
}

var addressForm = regexp.MustCompile(`^(?:(b)|p(-?\d+)|m(\d+)|(-?0x[0-9a-f]+))([+-]0x[0-9a-f]+)?$`)

// ParseAddress is the reverse of String.
func ParseAddress(text string) (Address, error) {
	parts := addressForm.FindStringSubmatch(text)
	if parts == nil {
		return 0, fmt.Errorf("no address: %q", text)
	}
	var numbers [6]int64
	for i, part := range parts {
		if i < 2 || part == "" {
			continue
		}
		var err error
		if numbers[i], err = strconv.ParseInt(part, 0, 64); err != nil {
			return 0, fmt.Errorf("no address: %q", text)
		}
	}
	page, slot, absolute, distance := numbers[2], numbers[3], numbers[4], numbers[5]
	switch {
	case parts[1] != "":
		return At(Heap, distance), nil
	case parts[2] != "":
		return At(Arena, page*PageSize+distance), nil
	case parts[3] == "":
		return At(Absolute, absolute+distance), nil
	case slot >= Slots:
		return 0, fmt.Errorf("no slot: %q", text)
	}
	return At(FirstSlot+int(slot), distance), nil
}
