// Claims where mmap puts a mapping that is not MAP_FIXED: at the hint if that is free, never over anything,
// never in the room that a growing mapping wants.
package mmap

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// guardPages is the room below a growing mapping that nothing is put in unasked (Linux: stack_guard_gap).
const guardPages = 256

func TestFreeHintIsTaken(t *testing.T) {
	for name, c := range map[string]struct {
		hint  uintptr // in the arena, of which pages 0, 1 and 6 are mapped
		pages int
		at    int
	}{
		"in the hole":            {kit.Len(3), 1, 3},
		"the whole hole":         {kit.Len(2), 4, 2},
		"after the last":         {kit.Len(7), 1, 7},
		"rounded down to a page": {kit.Len(3) + 1, 1, 3},
		"rounded down by a lot":  {kit.Len(4) - 1, 1, 3},
	} {
		for kind, file := range map[string]bool{"anonymous": false, "file": true} {
			t.Run(name+" "+kind, func(t *testing.T) {
				a := kit.NewArena(t, 8)
				a.Anon(t, 0, 2, none, 0)
				a.Anon(t, 6, 1, none, 0)
				fd, flags := -1, anon
				if file {
					fd, flags = kit.File(t, 4), unix.MAP_SHARED
				}
				r := kit.Me.Mmap(a.Base+c.hint, kit.Len(c.pages), rw, flags, fd, 0)
				unmapped(t, r, kit.Len(c.pages))
				kit.Say(t, "%s", a.Where(r.Value))
				assert.Equal(t, a.Page(c.at), r.Value)
			})
		}
	}
}

// A hint that is not free is no reason to fail, nor to replace anything.
func TestTakenHintIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct{ at, pages int }{
		"mapped": {0, 1}, "mapped to the end": {0, 8}, "hole too small": {2, 5}, "reaches back": {5, 2},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Anon(t, 0, 2, rw, 0)
			a.Anon(t, 6, 1, rw, 0)
			a.Fill(t, 0, 2, 1)
			a.Fill(t, 6, 1, 6)
			r := kit.Me.Mmap(a.Page(c.at), kit.Len(c.pages), rw, anon, -1, 0)
			unmapped(t, r, kit.Len(c.pages))
			kit.Say(t, "%v", a.Layout(t, kit.Me))
			assert.Equal(t, []string{"p0-p2 rw-p 0", "p6-p7 rw-p 0"}, a.Layout(t, kit.Me))
			assert.False(t, overlaps(a, r.Value, kit.Len(c.pages)))
			assert.Equal(t, "06", a.Bytes(kit.Me, 6, 1)[0])
		})
	}
}

// A hint that is no address at all is none.
func TestImpossibleHintIsIgnored(t *testing.T) {
	for name, hint := range map[string]uintptr{"beyond the address space": 1 << 62, "last page": ^uintptr(0) &^ 0xfff} {
		t.Run(name, func(t *testing.T) {
			r := kit.Me.Mmap(hint, kit.Len(1), rw, anon, -1, 0)
			kit.Say(t, "%v", r.OK())
			unmapped(t, r, kit.Len(1))
		})
	}
}

// Below the lowest address that applications may map, the hint is that address.
func TestTooLowHint(t *testing.T) {
	child := unprivileged(t)
	r := child.Mmap(1, kit.Len(1), rw, anon, -1, 0)
	require.True(t, r.OK(), "%v", r)
	assert.NotZero(t, r.Value)
}

// Mappings that the kernel places do not overlap each other or anything else, are aligned to pages, and are
// not near address 0.
func TestChosenPlacesAreFree(t *testing.T) {
	type placed struct{ addr, length uintptr }
	var all []placed
	for i := range 200 {
		length := kit.Len(1 + i%7)
		r := kit.Me.Mmap(0, length, ro, anon|unix.MAP_NORESERVE, -1, 0)
		unmapped(t, r, length)
		assert.Zero(t, r.Value%uintptr(kit.PageSize))
		assert.GreaterOrEqual(t, r.Value, uintptr(0x10000))
		for _, p := range all {
			assert.False(t, r.Value < p.addr+p.length && p.addr < r.Value+length, "two mappings overlap")
		}
		all = append(all, placed{r.Value, length})
	}
	for _, p := range all {
		access := kit.Me.Load(p.addr + p.length - 1)
		assert.False(t, access.Faulted())
	}
}

// Neither the head of the range nor its tail gets in the way of a fixed neighbour.
func TestAddressSpaceIsExhaustible(t *testing.T) {
	child := kit.Fork(t)
	const chunk = 1 << 44
	n := 0
	for ; n < 64; n++ {
		if r := child.Mmap(0, chunk, none, anon|unix.MAP_NORESERVE, -1, 0); !r.OK() {
			assert.Equal(t, unix.ENOMEM, r.Errno)
			break
		}
	}
	// 47 or 48 bits of address space.
	assert.Less(t, n, 17)
	r := child.Mmap(0, kit.Len(1), rw, anon, -1, 0)
	assert.True(t, r.OK(), "there is room for small mappings: %v", r)
}

func low32(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("MAP_32BIT is of x86-64")
	}
}

const map32 = 0x40

func TestLow32MappingIsInTheFirst2GiB(t *testing.T) {
	low32(t)
	for name, flags := range map[string]int{"anonymous": anon, "shared": shared, "populated": anon | unix.MAP_POPULATE, "file": unix.MAP_PRIVATE} {
		t.Run(name, func(t *testing.T) {
			fd := -1
			if flags == unix.MAP_PRIVATE {
				fd = kit.File(t, 3)
			}
			for range 3 {
				r := kit.Me.Mmap(0, kit.Len(3), rw, flags|map32, fd, 0)
				unmapped(t, r, kit.Len(3))
				assert.LessOrEqual(t, r.Value+kit.Len(3), uintptr(1)<<31)
				assert.False(t, kit.Me.Store(r.Value, 1).Faulted())
			}
		})
	}
}

// A hint elsewhere does not lift it out.
func TestLow32WithAHintAbove(t *testing.T) {
	low32(t)
	a := kit.NewArena(t, 2)
	r := kit.Me.Mmap(a.Base, kit.Len(1), rw, anon|map32, -1, 0)
	unmapped(t, r, kit.Len(1))
	assert.LessOrEqual(t, r.Value+kit.Len(1), uintptr(1)<<31)
	assert.Empty(t, a.Layout(t, kit.Me))
}

func TestLow32WithAHintBelow(t *testing.T) {
	low32(t)
	const hint = 0x5000_0000
	r := kit.Me.Mmap(hint, kit.Len(1), rw, anon|map32, -1, 0)
	unmapped(t, r, kit.Len(1))
	kit.Say(t, "%#x", r.Value)
	assert.Equal(t, uintptr(hint), r.Value)
}

func TestLow32IsIgnoredWithFixed(t *testing.T) {
	low32(t)
	a := kit.NewArena(t, 1)
	r := kit.Me.Mmap(a.Base, kit.Len(1), rw, anon|map32|fixed, -1, 0)
	kit.Say(t, "%s", kit.ErrnoName(r.Errno))
	assert.True(t, r.OK())
	assert.Equal(t, a.Base, r.Value)
}

func TestLow32RunsOut(t *testing.T) {
	low32(t)
	r := kit.Me.Mmap(0, 2<<30, none, anon|map32|unix.MAP_NORESERVE, -1, 0)
	kit.Say(t, "%s", kit.ErrnoName(r.Errno))
	assert.Equal(t, unix.ENOMEM, r.Errno)

	child := kit.Fork(t)
	n := 0
	for ; n < 32; n++ {
		if r := child.Mmap(0, 128<<20, none, anon|map32|unix.MAP_NORESERVE, -1, 0); !r.OK() {
			assert.Equal(t, unix.ENOMEM, r.Errno)
			break
		}
	}
	assert.LessOrEqual(t, n, 16)
	assert.NotZero(t, n)
	assert.True(t, child.Mmap(0, kit.Len(1), rw, anon, -1, 0).OK(), "above there is room")
}

// A hint in the room below a growing mapping counts as taken; one just below that room does not.
func TestHintKeepsOutOfTheGuardGap(t *testing.T) {
	for name, c := range map[string]struct {
		below int // pages between the new mapping and the growing one
		taken bool
	}{
		"adjacent": {0, false}, "one page": {1, false}, "one too few": {guardPages - 1, false}, "enough": {guardPages, true},
	} {
		t.Run(name, func(t *testing.T) {
			const top = guardPages + 8
			a := kit.NewArena(t, top+2)
			a.Anon(t, top, 1, rw, unix.MAP_GROWSDOWN)
			at := top - c.below - 1
			r := kit.Me.Mmap(a.Page(at), kit.Len(1), rw, anon, -1, 0)
			unmapped(t, r, kit.Len(1))
			kit.Say(t, "at the hint: %v", r.Value == a.Page(at))
			assert.Equal(t, c.taken, r.Value == a.Page(at))
		})
	}
}

// Just above a growing mapping there is no such room, and MAP_FIXED_NOREPLACE ignores it.
func TestGuardGapIsBelowOnlyAndNotForFixed(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 3, 1, rw, unix.MAP_GROWSDOWN)
	r := kit.Me.Mmap(a.Page(4), kit.Len(1), ro, anon, -1, 0)
	unmapped(t, r, kit.Len(1))
	assert.Equal(t, a.Page(4), r.Value)
	r = kit.Me.Mmap(a.Page(2), kit.Len(1), ro, anon|unix.MAP_FIXED_NOREPLACE, -1, 0)
	unmapped(t, r, kit.Len(1))
	kit.Say(t, "%v", a.Layout(t, kit.Me))
	assert.Equal(t, a.Page(2), r.Value)
}
