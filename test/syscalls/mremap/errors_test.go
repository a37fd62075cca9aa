// What mremap refuses, and that it changes nothing then. The whole matrix of arguments is a suite of its
// own; here are the rules with their names.
package mremap

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestRefused(t *testing.T) {
	const huge = uintptr(1) << 62
	for _, c := range []struct {
		name     string
		addr     uintptr // from the start of the arena; the mapping is its pages [4,8)
		old, new uintptr
		flags    int
		to       uintptr
		want     unix.Errno
	}{
		{"unaligned-address", kit.Len(4) + 1, P, P, 0, 0, unix.EINVAL},
		{"unaligned-address-grow", kit.Len(4) + 1, P, 2 * P, may, 0, unix.EINVAL},
		{"new-size-zero", kit.Len(4), P, 0, 0, 0, unix.EINVAL},
		{"new-size-zero-move", kit.Len(4), P, 0, fixed, kit.Len(16), unix.EINVAL},
		{"new-size-huge", kit.Len(4), P, huge, may, 0, unix.EINVAL},
		{"new-size-overflows", kit.Len(4), P, ^uintptr(0), may, 0, unix.EINVAL},
		{"unknown-flag", kit.Len(4), P, P, 8, 0, unix.EINVAL},
		{"fixed-without-may-move", kit.Len(4), P, P, unix.MREMAP_FIXED, kit.Len(16), unix.EINVAL},
		{"unaligned-destination", kit.Len(4), P, P, fixed, kit.Len(16) + 8, unix.EINVAL},
		{"destination-is-source", kit.Len(4), P, P, fixed, kit.Len(4), unix.EINVAL},
		{"destination-overlaps-start", kit.Len(4), 2 * P, 2 * P, fixed, kit.Len(3), unix.EINVAL},
		{"destination-overlaps-end", kit.Len(4), 2 * P, 2 * P, fixed, kit.Len(5), unix.EINVAL},
		{"destination-overlaps-what-is-cut-off", kit.Len(4), 4 * P, P, fixed, kit.Len(7), unix.EINVAL},
		{"destination-holds-source", kit.Len(5), P, 4 * P, fixed, kit.Len(3), unix.EINVAL},
		{"hole", kit.Len(1), P, 2 * P, may, 0, unix.EFAULT},
		{"hole-same-size", kit.Len(1), P, P, 0, 0, unix.EFAULT},
		{"hole-shrink", kit.Len(1), 2 * P, P, 0, 0, unix.EFAULT},
		{"beyond-the-mapping", kit.Len(6), 4 * P, 5 * P, may, 0, unix.EFAULT},
		{"move-beyond-the-mapping", kit.Len(6), 4 * P, 5 * P, fixed, kit.Len(16), unix.EFAULT},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 26)
			a.Anon(t, 4, 4, kit.RW, 0)
			a.Anon(t, 16, 1, kit.RW, 0)
			a.Fill(t, 4, 4, 0x10)
			before := layout(t, a)
			r := kit.Me.Mremap(a.Base+c.addr, c.old, c.new, c.flags, a.Base+c.to)
			kit.Say(t, "%s", result(a, r))
			assert.Equal(t, c.want, r.Errno)
			assert.Equal(t, before, layout(t, a))
			assert.Equal(t, []string{"10", "11", "12", "13"}, contents(kit.Me, a.Page(4), 4))
		})
	}
}

// Sizes are rounded up to pages.
func TestSizesAreRounded(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new uintptr
		want     string
	}{
		{"shrink", 4 * P, P + 1, "p4-p6 rw-p 0"},
		{"shrink-from-part", 3*P + 1, P, "p4-p5 rw-p 0"},
		{"same", 3*P + 1, 3*P + 2, "p4-p8 rw-p 0"},
		{"grow", 4 * P, 4*P + 1, "p4-p9 rw-p 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 26)
			a.Anon(t, 4, 4, kit.RW, 0)
			assert.Equal(t, "p4", result(a, kit.Me.Mremap(a.Page(4), c.old, c.new, 0, 0)))
			assert.Equal(t, []string{c.want}, layout(t, a))
		})
	}
}

// A mapping may grow beyond the last offset that a file can have.
func TestGrowthAtTheLastOffset(t *testing.T) {
	const last = int64(math.MaxInt64)
	a := kit.NewArena(t, 16)
	r := kit.Me.Mmap(a.Page(0), P, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED, kit.Memfd(t, 1, 0), last&^int64(P-1))
	kit.Say(t, "mmap: %s", result(a, r))
	kit.Say(t, "mremap: %s", result(a, kit.Me.Mremap(a.Page(0), P, 4*P, 0, 0)))
}
