// mremap with every place, sizes, flags and destinations.
package matrix

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

var (
	oldSizes = []length{{"0", 0}, {"1p", P}, {"6p", 6 * P}, {"-1", ^uintptr(0)}}
	newSizes = []length{{"0", 0}, {"1p", P}, {"6p", 6 * P}, {"2^62", 1 << 62}, {"-1p", -P}}
)

// destinations of MREMAP_FIXED.
var destinations = []place{
	{"hole", 56, 0},
	{"other", 13, 0},
	{"itself-maybe", 0, 0},
	{"unaligned", 56, 1},
	{"null", outside, 0},
	{"top-page", outside, top - P},
	{"top", outside, top},
	{"last-page", outside, -P},
}

func TestMremap(t *testing.T) {
	s := newScene(t)
	for _, way := range []struct {
		name  string
		flags uintptr
		to    []place
	}{
		{"in-place", 0, nil},
		{"may-move", unix.MREMAP_MAYMOVE, nil},
		{"fixed", unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED, destinations},
		{"fixed-alone", unix.MREMAP_FIXED, nil},
		{"unknown-flag", 8, nil},
		{"dont-unmap", unix.MREMAP_MAYMOVE | unix.MREMAP_DONTUNMAP, nil},
	} {
		t.Run(way.name, func(t *testing.T) {
			if way.to == nil {
				s.remaps(t, places, way.flags, destinations[0])
			}
			for i, d := range way.to {
				from := places
				if i >= 2 { // mostly refused, wherever from
					from = []place{places[0], places[4], places[6]}
				}
				t.Run(d.name, func(t *testing.T) { s.remaps(t, from, way.flags, d) })
			}
		})
	}
}

// remaps is a test for each place and old size, of all new sizes.
func (s *scene) remaps(t *testing.T, sources []place, flags uintptr, to place) {
	for _, from := range sources {
		t.Run(from.name, func(t *testing.T) {
			for _, old := range oldSizes {
				t.Run(old.name, func(t *testing.T) {
					s.in(t)
					var line []string
					for _, size := range newSizes {
						line = append(line, size.name+"="+s.remap(from.address(s), old.bytes, size.bytes, flags, to.address(s)))
					}
					kit.Say(t, "%s", strings.Join(line, " "))
				})
			}
		})
	}
}

func (s *scene) remap(from, old, size, flags, to uintptr) string {
	f := form{nr: unix.SYS_MREMAP, places: true, loses: flags&unix.MREMAP_FIXED != 0, args: func(*scene, uintptr, uintptr) []uintptr {
		return []uintptr{from, old, size, flags, to}
	}}
	return s.try(f, from, size)
}

// An old size that reaches beyond the address space is refused, also where it would be cut off. A kernel
// that cuts it off takes the caller's own memory away, so a child asks.
func TestMremapFromBeyondTheAddressSpace(t *testing.T) {
	for _, size := range []length{{"1p", P}, {"6p", 6 * P}} {
		t.Run(size.name, func(t *testing.T) {
			for _, from := range []place{places[0], places[4], places[6]} {
				t.Run(from.name, func(t *testing.T) {
					for name, flags := range map[string]int{"in-place": 0, "may-move": unix.MREMAP_MAYMOVE, "fixed": unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED} {
						t.Run(name, func(t *testing.T) {
							s := newScene(t)
							child := kit.Fork(t)
							r := child.Mremap(from.address(s), top, size.bytes, flags, s.a.Page(56))
							kit.Say(t, "%s", s.shown(form{places: true}, r, 0))
							if assert.NotEqual(t, unix.ESRCH, r.Errno, "the caller is gone") && !r.OK() {
								assert.Equal(t, s.a.Layout(t, kit.Me), s.a.Layout(t, child))
							}
						})
					}
				})
			}
		})
	}
}
