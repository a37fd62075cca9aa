// Claims what MAP_FIXED replaces, exactly, and what MAP_FIXED_NOREPLACE refuses to.
package mmap

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// Anonymous memory over each part of a mapping:
//
//	old   |--01--|--02--|--03--|--04--|
//	new          |--00--|--00--|
func TestFixedReplacesWhatIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		at, pages int
		bytes     []string
		layout    []string
	}{
		"all":        {0, 4, []string{"00", "00", "00", "00"}, []string{"p0-p4 r--p 0"}},
		"the head":   {0, 1, []string{"00", "02", "03", "04"}, []string{"p0-p1 r--p 0", "p1-p4 rw-p 0"}},
		"the tail":   {3, 1, []string{"01", "02", "03", "00"}, []string{"p0-p3 rw-p 0", "p3-p4 r--p 0"}},
		"the middle": {1, 2, []string{"01", "00", "00", "04"}, []string{"p0-p1 rw-p 0", "p1-p3 r--p 0", "p3-p4 rw-p 0"}},
		"and more":   {2, 3, []string{"01", "02", "00", "00"}, []string{"p0-p2 rw-p 0", "p2-p5 r--p 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Anon(t, 0, 4, rw, 0)
			a.Fill(t, 0, 4, 1)
			r := kit.Me.Mmap(a.Page(c.at), kit.Len(c.pages), ro, anon|fixed, -1, 0)
			require.True(t, r.OK())
			assert.Equal(t, a.Page(c.at), r.Value)
			kit.Say(t, "%v %v", a.Bytes(kit.Me, 0, 4), a.Layout(t, kit.Me))
			assert.Equal(t, c.bytes, a.Bytes(kit.Me, 0, 4))
			assert.Equal(t, c.layout, a.Layout(t, kit.Me))
		})
	}
}

// Everything in the range goes, with holes between:
//
//	old   |-anon-|  |-file-|-shared-|  |-none-|
//	new       |------------------------|
func TestFixedReplacesSeveralMappingsAndHoles(t *testing.T) {
	a := kit.NewArena(t, 16)
	a.Anon(t, 0, 3, rw, 0)
	a.Map(t, 4, 2, ro, unix.MAP_PRIVATE, kit.Memfd(t, 8, 0), 0)
	a.Map(t, 6, 2, rw, unix.MAP_SHARED, kit.Memfd(t, 8, 0), 2)
	a.Anon(t, 10, 4, none, 0)
	a.Anon(t, 2, 10, rx, 0)
	kit.Say(t, "%v", a.Layout(t, kit.Me))
	assert.Equal(t, []string{"p0-p2 rw-p 0", "p2-p12 r-xp 0", "p12-p14 ---p 0"}, a.Layout(t, kit.Me))
	assert.Equal(t, []string{"00", "00", "00", "00"}, a.Bytes(kit.Me, 4, 4))
}

// What is left of a mapping of a file shows the pages of the file that it showed before.
func TestFixedLeavesOffsetsRight(t *testing.T) {
	for name, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 6)
			a.Map(t, 0, 6, rw, flags, kit.Memfd(t, 8, 0), 1)
			a.Anon(t, 2, 2, none, 0)
			kit.Say(t, "%v %v", a.Layout(t, kit.Me), a.Bytes(kit.Me, 0, 6))
			assert.Equal(t, uint64(kit.Len(5)), a.Maps(t, kit.Me)[2].Offset)
			assert.Equal(t, []string{"42", "43", "SIGSEGV/ACCERR", "SIGSEGV/ACCERR", "46", "47"}, a.Bytes(kit.Me, 0, 6))
		})
	}
}

// Every kind of memory over every kind, in the middle of it.
func TestFixedEveryKindOverEveryKind(t *testing.T) {
	kinds := []struct {
		name  string
		flags int
		file  bool
		first string // what its first page holds
	}{
		{"anon", anon, false, "00"},
		{"anon populated", anon | unix.MAP_POPULATE, false, "00"},
		{"anon shared", shared, false, "00"},
		{"file private", unix.MAP_PRIVATE, true, "41"},
		{"file shared", unix.MAP_SHARED, true, "41"},
		{"file private populated", unix.MAP_PRIVATE | unix.MAP_POPULATE, true, "41"},
	}
	for _, old := range kinds {
		for _, new := range kinds {
			t.Run(new.name+" over "+old.name, func(t *testing.T) {
				a := kit.NewArena(t, 4)
				oldFD, newFD := -1, -1
				if old.file {
					oldFD = kit.File(t, 4)
				}
				if new.file {
					newFD = kit.File(t, 4)
				}
				a.Map(t, 0, 4, rw, old.flags, oldFD, 0)
				a.Fill(t, 0, 4, 0xa0)
				a.Map(t, 1, 2, rw, new.flags, newFD, 0)
				kit.Say(t, "%v", a.Bytes(kit.Me, 0, 4))
				assert.Equal(t, "a0", a.Bytes(kit.Me, 0, 1)[0])
				assert.Equal(t, new.first, a.Bytes(kit.Me, 1, 1)[0])
				assert.Equal(t, "a3", a.Bytes(kit.Me, 3, 1)[0])
				a.Fill(t, 1, 2, 0xb0)
				assert.Equal(t, []string{"a0", "b0", "b1", "a3"}, a.Bytes(kit.Me, 0, 4))
				if old.flags == unix.MAP_SHARED {
					assert.Equal(t, "a1", fileByte(t, oldFD, int64(kit.Len(1))), "the old file keeps what was written")
				}
				if new.flags == unix.MAP_SHARED {
					assert.Equal(t, "b1", fileByte(t, newFD, int64(kit.Len(1))))
				}
			})
		}
	}
}

// A file over itself: what was written to the shared pages is in the file, what was written to private ones is gone.
func TestFixedFileOverItself(t *testing.T) {
	for name, c := range map[string]struct {
		before, after int
		want          string
	}{
		"shared over shared":   {unix.MAP_SHARED, unix.MAP_SHARED, "a0"},
		"private over shared":  {unix.MAP_SHARED, unix.MAP_PRIVATE, "a0"},
		"shared over private":  {unix.MAP_PRIVATE, unix.MAP_SHARED, "41"},
		"private over private": {unix.MAP_PRIVATE, unix.MAP_PRIVATE, "41"},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			fd := kit.File(t, 2)
			a.Map(t, 0, 2, rw, c.before, fd, 0)
			a.Fill(t, 0, 1, 0xa0)
			a.Map(t, 0, 2, rw, c.after, fd, 0)
			kit.Say(t, "%v", a.Bytes(kit.Me, 0, 2))
			assert.Equal(t, []string{c.want, "42"}, a.Bytes(kit.Me, 0, 2))
		})
	}
}

// A child that has the old mapping keeps it.
func TestFixedInTheParentOnly(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, rw, 0)
	a.Fill(t, 0, 2, 1)
	child := kit.Fork(t)
	a.Map(t, 0, 2, rw, unix.MAP_SHARED, kit.Memfd(t, 2, 0), 0)
	assert.Equal(t, []string{"41", "42"}, a.Bytes(kit.Me, 0, 2))
	assert.Equal(t, []string{"01", "02"}, a.Bytes(child, 0, 2))
	assert.Equal(t, []string{"p0-p2 rw-p 0"}, a.Layout(t, child))
}

// Another thread sees the new mapping at once.
func TestFixedIsSeenByThreads(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Anon(t, 0, 1, rw, 0)
	thread := kit.NewThread(t)
	thread.Store(a.Base, 1)
	a.Map(t, 0, 1, ro, unix.MAP_PRIVATE, kit.Memfd(t, 1, 0), 0)
	assert.Equal(t, []string{"41"}, a.Bytes(thread, 0, 1))
	assert.Equal(t, "SIGSEGV/ACCERR at p0", a.Describe(thread.Store(a.Base, 2)))
}

// MAP_FIXED takes no account of the room that a growing mapping wants below it.
func TestFixedMayTouchAGrowingMapping(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 2, 2, rw, unix.MAP_GROWSDOWN)
	a.Anon(t, 0, 2, rw, 0)
	kit.Say(t, "%v", a.Layout(t, kit.Me))
	assert.Equal(t, []string{"p0-p2 rw-p 0", "p2-p4 rw-p 0"}, a.Layout(t, kit.Me))
}

// MAP_FIXED_NOREPLACE with an old mapping of pages [2,4).
func TestFixedNoreplaceRefusesOverlap(t *testing.T) {
	for name, c := range map[string]struct{ at, pages int }{
		"the same":   {2, 2},
		"the head":   {2, 1},
		"the tail":   {3, 1},
		"from below": {0, 3},
		"from above": {3, 3},
		"around":     {0, 8},
	} {
		for kind, flags := range map[string]int{"": 0, " with MAP_FIXED": fixed} {
			t.Run(name+kind, func(t *testing.T) {
				a := kit.NewArena(t, 8)
				a.Anon(t, 2, 2, rw, 0)
				a.Fill(t, 2, 2, 1)
				r := kit.Me.Mmap(a.Page(c.at), kit.Len(c.pages), ro, anon|unix.MAP_FIXED_NOREPLACE|flags, -1, 0)
				kit.Say(t, "%s %v", kit.ErrnoName(r.Errno), a.Layout(t, kit.Me))
				assert.Equal(t, unix.EEXIST, r.Errno)
				assert.Equal(t, []string{"p2-p4 rw-p 0"}, a.Layout(t, kit.Me))
				assert.Equal(t, []string{"01", "02"}, a.Bytes(kit.Me, 2, 2))
			})
		}
	}
}

func TestFixedNoreplaceTakesExactlyTheHole(t *testing.T) {
	for name, c := range map[string]struct{ at, pages int }{
		"below": {0, 2}, "above": {4, 2}, "between": {4, 2}, "far above": {7, 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Anon(t, 2, 2, rw, 0)
			a.Anon(t, 6, 1, rw, 0)
			r := kit.Me.Mmap(a.Page(c.at), kit.Len(c.pages), ro, anon|unix.MAP_FIXED_NOREPLACE, -1, 0)
			require.True(t, r.OK(), "%v", r)
			assert.Equal(t, a.Page(c.at), r.Value)
			kit.Say(t, "%v", a.Layout(t, kit.Me))
		})
	}
}

func TestFixedNoreplaceOfAFile(t *testing.T) {
	a := kit.NewArena(t, 2)
	fd := kit.File(t, 2)
	require.True(t, kit.Me.Mmap(a.Base, kit.Len(2), rw, unix.MAP_SHARED|unix.MAP_FIXED_NOREPLACE, fd, 0).OK())
	r := kit.Me.Mmap(a.Base, kit.Len(2), rw, unix.MAP_PRIVATE|unix.MAP_FIXED_NOREPLACE, fd, 0)
	kit.Say(t, "%s", kit.ErrnoName(r.Errno))
	assert.Equal(t, unix.EEXIST, r.Errno)
	assert.Equal(t, []string{"41", "42"}, a.Bytes(kit.Me, 0, 2))
}
