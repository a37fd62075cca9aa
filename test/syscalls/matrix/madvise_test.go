// Every advice, at every place. What an advice does to pages is the subject of another suite.
package matrix

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Of all advice, what is missing is what a machine without spare memory cannot stand, MADV_HWPOISON and
// MADV_SOFT_OFFLINE, and what depends on the state of its memory, MADV_COLLAPSE.
var advice = []struct {
	name  string
	value uintptr
	loud  bool // it changes contents or protection
}{
	{"normal", unix.MADV_NORMAL, false},
	{"random", unix.MADV_RANDOM, false},
	{"sequential", unix.MADV_SEQUENTIAL, false},
	{"willneed", unix.MADV_WILLNEED, false},
	{"dontneed", unix.MADV_DONTNEED, true},
	{"free", unix.MADV_FREE, true},
	{"remove", unix.MADV_REMOVE, true},
	{"dontfork", unix.MADV_DONTFORK, false},
	{"dofork", unix.MADV_DOFORK, false},
	{"hugepage", unix.MADV_HUGEPAGE, false},
	{"nohugepage", unix.MADV_NOHUGEPAGE, false},
	{"dontdump", unix.MADV_DONTDUMP, false},
	{"dodump", unix.MADV_DODUMP, false},
	{"wipeonfork", unix.MADV_WIPEONFORK, false},
	{"keeponfork", unix.MADV_KEEPONFORK, false},
	{"cold", unix.MADV_COLD, false},
	{"pageout", unix.MADV_PAGEOUT, false},
	{"populate-read", unix.MADV_POPULATE_READ, false},
	{"populate-write", unix.MADV_POPULATE_WRITE, false},
	{"dontneed-locked", unix.MADV_DONTNEED_LOCKED, true},
	{"guard-install", unix.MADV_GUARD_INSTALL, true},
	{"guard-remove", unix.MADV_GUARD_REMOVE, true},
	{"negative", ^uintptr(0), false},
	{"unknown", 12345, false},
}

// An advice is applied to all that is mapped, holes or not, and beyond the end of the address space: no
// valid range may reach out of the arena.
var adviceLengths = []length{
	{"0", 0}, {"1", 1}, {"1p", P}, {"8p", 8 * P}, {"64p", 64 * P}, {"-1p", -P}, {"-1", ^uintptr(0)},
}

func TestMadvise(t *testing.T) {
	s := newScene(t)
	for _, a := range advice {
		t.Run(a.name, func(t *testing.T) {
			f := form{name: a.name, nr: unix.SYS_MADVISE, args: addrLen(a.value), partial: true, beyond: true, quiet: !a.loud}
			s.overPlaces(t, f, adviceLengths)
		})
	}
}
