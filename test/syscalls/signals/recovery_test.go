// What was a bad access is a good one when its cause is gone, for every thread that tried.
package signals

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// cures are what makes a page of the stage usable.
var cures = []struct {
	name string
	page int
	cure func(t *testing.T, actor *kit.Actor, a *kit.Arena, file int)
}{
	{"map-the-hole", hole, func(t *testing.T, actor *kit.Actor, a *kit.Arena, _ int) {
		require.True(t, actor.Mmap(a.Page(hole), kit.Len(1), kit.RW, anonymous, -1, 0).OK())
	}},
	{"protect-none", none, func(t *testing.T, actor *kit.Actor, a *kit.Arena, _ int) {
		require.Zero(t, actor.Mprotect(a.Page(none), kit.Len(1), kit.RW))
	}},
	{"protect-read-only", readOnly, func(t *testing.T, actor *kit.Actor, a *kit.Arena, _ int) {
		require.Zero(t, actor.Mprotect(a.Page(readOnly), kit.Len(1), kit.RW))
	}},
	{"map-over-none", none, func(t *testing.T, actor *kit.Actor, a *kit.Arena, _ int) {
		require.True(t, actor.Mmap(a.Page(none), kit.Len(1), kit.RW, anonymous, -1, 0).OK())
	}},
	{"lengthen-the-file", fileEnd, func(t *testing.T, actor *kit.Actor, _ *kit.Arena, file int) {
		require.True(t, actor.Call(unix.SYS_FTRUNCATE, uintptr(file), kit.Len(2)).OK())
	}},
	{"write-to-the-file", fileEnd, func(t *testing.T, actor *kit.Actor, a *kit.Arena, file int) {
		require.True(t, actor.Call(unix.SYS_PWRITE64, uintptr(file), a.Page(writable), kit.Len(1), kit.Len(1)).OK())
	}},
	{"map-over-the-file", fileEnd, func(t *testing.T, actor *kit.Actor, a *kit.Arena, _ int) {
		require.True(t, actor.Mmap(a.Page(fileEnd), kit.Len(1), kit.RW, anonymous, -1, 0).OK())
	}},
	{"move-a-page-there", hole, func(t *testing.T, actor *kit.Actor, a *kit.Arena, _ int) {
		require.True(t, actor.Mremap(a.Page(writable), kit.Len(1), kit.Len(1), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(hole)).OK())
	}},
}

func TestRecovery(t *testing.T) {
	for _, c := range cures {
		t.Run(c.name, func(t *testing.T) {
			t.Run("self", func(t *testing.T) {
				a, file := stage(t)
				recovers(t, a, c.page, kit.Me, func() { c.cure(t, kit.Me, a, file) })
			})
			t.Run("by-another-thread", func(t *testing.T) {
				a, file := stage(t)
				recovers(t, a, c.page, kit.NewThread(t), func() { c.cure(t, kit.Me, a, file) })
			})
			t.Run("in-a-child", func(t *testing.T) {
				a, file := stage(t)
				child := kit.Fork(t)
				recovers(t, a, c.page, child, func() { c.cure(t, child, a, file) })
			})
		})
	}
}

func recovers(t *testing.T, a *kit.Arena, page int, actor *kit.Actor, cure func()) {
	t.Helper()
	require.True(t, actor.Store(a.Page(page)+1, 7).Faulted())
	cure()
	require.False(t, actor.Store(a.Page(page)+1, 7).Faulted())
	assert.Equal(t, kit.Access{Value: 7}, actor.Load(a.Page(page)+1))
	assert.Equal(t, kit.Access{}, actor.Load(a.Page(page)+2), "a failed store leaves nothing")
}

// And what was good is bad again, at once and for all threads.
func TestRelapse(t *testing.T) {
	a, _ := stage(t)
	thread := kit.NewThread(t)
	for range 20 {
		require.False(t, thread.Store(a.Page(writable), 1).Faulted())
		require.Zero(t, kit.Me.Mprotect(a.Page(writable), kit.Len(1), unix.PROT_READ))
		require.Equal(t, "SIGSEGV/ACCERR", thread.Store(a.Page(writable), 1).SignalName())
		require.Zero(t, kit.Me.Mprotect(a.Page(writable), kit.Len(1), unix.PROT_NONE))
		require.Equal(t, "SIGSEGV/ACCERR", thread.Load(a.Page(writable)).SignalName())
		require.Zero(t, kit.Me.Munmap(a.Page(writable), kit.Len(1)))
		require.Equal(t, "SIGSEGV/MAPERR", thread.Load(a.Page(writable)).SignalName())
		a.Anon(t, writable, 1, kit.RW, 0)
	}
}
