// Claims that a call which fails in the middle has changed exactly what lies below the failure.
package mprotect

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// |--rw--|  hole  |--rw--|
func TestHoleStopsTheChange(t *testing.T) {
	for name, c := range map[string]struct {
		at, pages int
		want      []string
	}{
		"in the middle":   {0, 6, []string{"p0-p2 r--p 0", "p4-p6 rw-p 0"}},
		"from the middle": {1, 5, []string{"p0-p1 rw-p 0", "p1-p2 r--p 0", "p4-p6 rw-p 0"}},
		"at the start":    {2, 4, []string{"p0-p2 rw-p 0", "p4-p6 rw-p 0"}},
		"at the end":      {4, 4, []string{"p0-p2 rw-p 0", "p4-p6 r--p 0"}},
		"all hole":        {2, 2, []string{"p0-p2 rw-p 0", "p4-p6 rw-p 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Anon(t, 0, 2, rw, 0)
			a.Anon(t, 4, 2, rw, 0)
			a.Fill(t, 0, 2, 1)
			a.Fill(t, 4, 2, 5)
			e := kit.Me.Mprotect(a.Page(c.at), kit.Len(c.pages), ro)
			kit.Say(t, "%s %v", kit.ErrnoName(e), a.Layout(t, kit.Me))
			assert.Equal(t, unix.ENOMEM, e)
			assert.Equal(t, c.want, a.Layout(t, kit.Me))
			assert.Equal(t, []string{"01", "02", gone, gone, "05", "06"}, a.Bytes(kit.Me, 0, 6))
		})
	}
}

// What was changed before the hole is really changed, for every access.
func TestPartBelowTheHoleIsChanged(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 2, rw, 0)
	a.Fill(t, 0, 2, 1)
	thread := kit.NewThread(t)
	require.False(t, thread.Store(a.Page(1), 9).Faulted())
	assert.Equal(t, unix.ENOMEM, kit.Me.Mprotect(a.Page(1), kit.Len(2), ro))
	assert.False(t, thread.Store(a.Page(0), 8).Faulted())
	assert.Equal(t, denied+" at p1", a.Describe(thread.Store(a.Page(1), 8)))
}

// A mapping that may not have the protection stops it too.
//
//	|--anon r--|--file r, cannot be written--|--anon r--|
func TestForbiddenProtectionStopsTheChange(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 6)
		a.Anon(t, 0, 2, ro, 0)
		a.Map(t, 2, 2, ro, unix.MAP_SHARED, kit.Open(t, d.NamedFile(t, 2), unix.O_RDONLY), 0)
		a.Anon(t, 4, 2, ro, 0)
		e := kit.Me.Mprotect(a.Page(1), kit.Len(4), rw)
		kit.Say(t, "%s %v", kit.ErrnoName(e), ranges(t, a))
		assert.Equal(t, unix.EACCES, e)
		assert.Equal(t, []string{"p0-p1 r--p 0", "p1-p2 rw-p 0", "p2-p4 r--s 0", "p4-p6 r--p 0"}, ranges(t, a))
	})
}

// Which of two failures is reported is decided by the address.
func TestFirstFailureIsReported(t *testing.T) {
	a := kit.NewArena(t, 6)
	fd := kit.Open(t, kit.Dirs()[0].NamedFile(t, 1), unix.O_RDONLY)
	a.Map(t, 1, 1, ro, unix.MAP_SHARED, fd, 0)
	a.Map(t, 3, 1, ro, unix.MAP_SHARED, fd, 0)
	assert.Equal(t, unix.EACCES, kit.Me.Mprotect(a.Page(1), kit.Len(2), rw), "then a hole")
	assert.Equal(t, unix.ENOMEM, kit.Me.Mprotect(a.Page(2), kit.Len(2), rw), "a hole first")
}

// What cannot be had cannot be had by the part of a mapping either.
func TestForbiddenForAPart(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Map(t, 0, 4, ro, unix.MAP_SHARED, kit.Open(t, kit.Dirs()[0].NamedFile(t, 4), unix.O_RDONLY), 0)
	assert.Equal(t, unix.EACCES, kit.Me.Mprotect(a.Page(1), kit.Len(1), rw))
	kit.Say(t, "%v", ranges(t, a))
	assert.Equal(t, []string{"p0-p4 r--s 0"}, ranges(t, a), "nothing was split")
}

// PROT_GROWSDOWN extends the change down to the start of a mapping that grows down.
func TestGrowsdownExtendsTheChange(t *testing.T) {
	for name, c := range map[string]struct {
		at, pages int
		want      []string
	}{
		"from the middle": {4, 1, []string{"p2-p5 r--p 0", "p5-p6 rw-p 0"}},
		"from the start":  {2, 1, []string{"p2-p3 r--p 0", "p3-p6 rw-p 0"}},
		"from below":      {1, 2, []string{"p2-p3 r--p 0", "p3-p6 rw-p 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Anon(t, 2, 4, rw, unix.MAP_GROWSDOWN)
			e := kit.Me.Mprotect(a.Page(c.at), kit.Len(c.pages), ro|unix.PROT_GROWSDOWN)
			kit.Say(t, "%s %v", kit.ErrnoName(e), a.Layout(t, kit.Me))
			assert.Equal(t, unix.Errno(0), e)
			assert.Equal(t, c.want, a.Layout(t, kit.Me))
		})
	}
}
