// Claims how mprotect splits and merges mappings, and that it changes nothing else about them.
package mprotect

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// old   |------A------|
// new      |--B--|
func TestSplits(t *testing.T) {
	for name, c := range map[string]struct {
		at, pages int
		want      []string
	}{
		"all":        {0, 6, []string{"p0-p6 r--p 0"}},
		"the head":   {0, 2, []string{"p0-p2 r--p 0", "p2-p6 rw-p 0"}},
		"the tail":   {5, 1, []string{"p0-p5 rw-p 0", "p5-p6 r--p 0"}},
		"the middle": {2, 2, []string{"p0-p2 rw-p 0", "p2-p4 r--p 0", "p4-p6 rw-p 0"}},
	} {
		for kind, fill := range map[string]bool{"untouched": false, "touched": true} {
			t.Run(name+" "+kind, func(t *testing.T) {
				a := kit.NewArena(t, 6)
				a.Anon(t, 0, 6, rw, 0)
				if fill {
					a.Fill(t, 0, 6, 1)
				}
				protect(t, a, c.at, c.pages, ro)
				kit.Say(t, "%v", a.Layout(t, kit.Me))
				if fill { // to read is to touch: some versions of Linux 6.18 do not merge what was read in several mappings
					kit.Say(t, "%v", a.Bytes(kit.Me, 0, 6))
				}
				assert.Equal(t, c.want, a.Layout(t, kit.Me))
				// And back: one mapping again.
				protect(t, a, c.at, c.pages, rw)
				assert.Equal(t, []string{"p0-p6 rw-p 0"}, a.Layout(t, kit.Me))
				kit.Say(t, "%v", a.Bytes(kit.Me, 0, 6))
			})
		}
	}
}

// Merging with what is around, from three parts A B A' of which B changes:
//
//	|-rw-|-r-|-rw-|
func TestMerges(t *testing.T) {
	for name, c := range map[string]struct {
		prots     [3]int
		at, pages int
		prot      int
		want      []string
	}{
		"with both":              {[3]int{rw, ro, rw}, 2, 2, rw, []string{"p0-p6 rw-p 0"}},
		"with the one below":     {[3]int{rw, ro, none}, 2, 2, rw, []string{"p0-p4 rw-p 0", "p4-p6 ---p 0"}},
		"with the one above":     {[3]int{none, ro, rw}, 2, 2, rw, []string{"p0-p2 ---p 0", "p2-p6 rw-p 0"}},
		"its head":               {[3]int{rw, ro, rw}, 2, 1, rw, []string{"p0-p3 rw-p 0", "p3-p4 r--p 0", "p4-p6 rw-p 0"}},
		"its tail":               {[3]int{rw, ro, rw}, 3, 1, rw, []string{"p0-p2 rw-p 0", "p2-p3 r--p 0", "p3-p6 rw-p 0"}},
		"across all of them":     {[3]int{rw, ro, none}, 0, 6, rx, []string{"p0-p6 r-xp 0"}},
		"across two edges":       {[3]int{rw, ro, none}, 1, 4, ro, []string{"p0-p1 rw-p 0", "p1-p5 r--p 0", "p5-p6 ---p 0"}},
		"no change":              {[3]int{rw, ro, rw}, 2, 2, ro, []string{"p0-p2 rw-p 0", "p2-p4 r--p 0", "p4-p6 rw-p 0"}},
		"the other way":          {[3]int{rw, ro, rw}, 0, 2, ro, []string{"p0-p4 r--p 0", "p4-p6 rw-p 0"}},
		"the rest joins as well": {[3]int{rw, ro, rw}, 1, 1, ro, []string{"p0-p1 rw-p 0", "p1-p4 r--p 0", "p4-p6 rw-p 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 6)
			a.Anon(t, 0, 6, rw, 0)
			for i, prot := range c.prots {
				protect(t, a, 2*i, 2, prot)
			}
			protect(t, a, c.at, c.pages, c.prot)
			kit.Say(t, "%v", a.Layout(t, kit.Me))
			assert.Equal(t, c.want, a.Layout(t, kit.Me))
		})
	}
}

func TestFileMappingsSplitAndMerge(t *testing.T) {
	for kind, c := range map[string]struct {
		flags int
		s     string
	}{"private": {unix.MAP_PRIVATE, "p"}, "shared": {unix.MAP_SHARED, "s"}} {
		t.Run(kind, func(t *testing.T) {
			kit.EachDir(t, func(t *testing.T, d kit.Dir) {
				a := kit.NewArena(t, 6)
				a.Map(t, 0, 6, rw, c.flags, d.File(t, 8), 1)
				protect(t, a, 2, 2, ro)
				kit.Say(t, "%v %v", ranges(t, a), a.Bytes(kit.Me, 0, 6))
				assert.Equal(t, []string{"p0-p2 rw-" + c.s + " 1", "p2-p4 r--" + c.s + " 3", "p4-p6 rw-" + c.s + " 5"}, ranges(t, a))
				assert.Equal(t, []string{"42", "43", "44", "45", "46", "47"}, a.Bytes(kit.Me, 0, 6))
				protect(t, a, 0, 6, rw)
				assert.Equal(t, []string{"p0-p6 rw-" + c.s + " 1"}, ranges(t, a))
			})
		})
	}
}

// Different files stay apart though their protection is the same.
func TestDifferentMappingsDoNotMerge(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 1, ro, 0)
	a.Map(t, 1, 1, rw, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
	a.Map(t, 2, 1, rw, shared, -1, 0)
	a.Anon(t, 3, 1, none, 0)
	protect(t, a, 0, 4, rw)
	kit.Say(t, "%v", ranges(t, a))
	assert.Equal(t, []string{"p0-p1 rw-p 0", "p1-p2 rw-s 0", "p2-p3 rw-s 0", "p3-p4 rw-p 0"}, ranges(t, a))
}

// Locks, the advice for fork and the flag to grow down stay with the pages.
func TestOtherFlagsStay(t *testing.T) {
	for name, c := range map[string]struct {
		flags, advice int
		shown         string
	}{
		"locked":     {unix.MAP_LOCKED, unix.MADV_NORMAL, "lo "},
		"dontfork":   {0, unix.MADV_DONTFORK, "dc "},
		"grows down": {unix.MAP_GROWSDOWN, unix.MADV_NORMAL, "gd "},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 3)
			a.Anon(t, 0, 3, rw, c.flags)
			require.Zero(t, kit.Me.Madvise(a.Base, kit.Len(3), c.advice))
			protect(t, a, 1, 1, ro)
			smaps := a.Smaps(t, kit.Me)
			for i := range 3 {
				require.Contains(t, smaps, i)
				assert.Contains(t, smaps[i]["VmFlags"]+" ", c.shown)
			}
			protect(t, a, 1, 1, rw)
			assert.Len(t, a.Maps(t, kit.Me), 1)
		})
	}
}

// Flags of smaps follow the protection.
func TestVmFlagsFollow(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Anon(t, 0, 1, rw, 0)
	for _, c := range []struct {
		prot int
		want []string
		not  []string
	}{
		{none, nil, []string{"rd", "wr", "ex"}},
		{ro, []string{"rd"}, []string{"wr", "ex"}},
		{rx, []string{"rd", "ex"}, []string{"wr"}},
		{rw, []string{"rd", "wr"}, []string{"ex"}},
	} {
		protect(t, a, 0, 1, c.prot)
		flags := " " + a.Smaps(t, kit.Me)[0]["VmFlags"] + " "
		for _, f := range append(c.want, "mr", "mw", "me") {
			assert.Contains(t, flags, " "+f+" ")
		}
		for _, f := range c.not {
			assert.NotContains(t, flags, " "+f+" ")
		}
	}
}

// Every other page of a large mapping, and back.
func TestManySplitsAndMerges(t *testing.T) {
	const pages = 200
	a := kit.NewArena(t, pages)
	a.Anon(t, 0, pages, rw, 0)
	a.Fill(t, 0, pages, 0)
	for i := 1; i < pages; i += 2 {
		protect(t, a, i, 1, ro)
	}
	assert.Len(t, a.Maps(t, kit.Me), pages)
	for i := range pages {
		require.Equal(t, i%2 == 1, kit.Me.Store(a.Page(i), byte(i)).Faulted(), "page %d", i)
	}
	protect(t, a, 0, pages, rw)
	assert.Len(t, a.Maps(t, kit.Me), 1)
	for i := range pages {
		require.Equal(t, uint64(byte(i)), kit.Me.Load(a.Page(i)).Value)
	}
}
