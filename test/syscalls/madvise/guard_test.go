// These tests claim what MADV_GUARD_INSTALL and MADV_GUARD_REMOVE do: pages that nobody can access, without a
// change of mappings.
package madvise

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// guarded is an arena of five pages filled with 1 to 5, of which pages 1 and 2 are guards.
func guarded(t *testing.T, flags, fd int) *kit.Arena {
	a := kit.NewArena(t, 8)
	a.Map(t, 0, 5, kit.RW, flags, fd, 0)
	a.Fill(t, 0, 5, 1)
	mustAdvise(t, a, 1, 2, guardInstall)
	return a
}

const anonymous = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS

func TestGuardStopsAccess(t *testing.T) {
	a := guarded(t, anonymous, -1)
	assert.Equal(t, "01 SIGSEGV SIGSEGV 04 05", contents(a, kit.Me, 0, 5))
	assert.Equal(t, unix.SIGSEGV, kit.Me.Store(a.Page(1), 1).Signal)
	assert.Len(t, a.Maps(t, kit.Me), 1)
}

func TestGuardStopsTheKernel(t *testing.T) {
	a := guarded(t, anonymous, -1)
	r, w := kit.Pipe(t)
	assert.Equal(t, unix.EFAULT, kit.Me.Write(w, a.Page(1), 1).Errno)
	require.True(t, kit.Me.Write(w, a.Page(0), 1).OK())
	assert.Equal(t, unix.EFAULT, kit.Me.Read(r, a.Page(2), 1).Errno)
}

func TestGuardOfAFile(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags int
		after string
	}{{"private", unix.MAP_PRIVATE, "01 42 43 04 05"}, {"shared", unix.MAP_SHARED, "01 02 03 04 05"}} {
		t.Run(c.name, func(t *testing.T) {
			a := guarded(t, c.flags, kit.File(t, 5))
			assert.Equal(t, "01 SIGSEGV SIGSEGV 04 05", contents(a, kit.Me, 0, 5))
			mustAdvise(t, a, 0, 5, guardRemove)
			assert.Equal(t, c.after, contents(a, kit.Me, 0, 5))
		})
	}
}

func TestGuardIsGoneBy(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(t *testing.T, a *kit.Arena)
		after string
	}{
		{"removal", func(t *testing.T, a *kit.Arena) { mustAdvise(t, a, 0, 5, guardRemove) }, "01 00 00 04 05"},
		{"removal of one", func(t *testing.T, a *kit.Arena) { mustAdvise(t, a, 0, 2, guardRemove) }, "01 00 SIGSEGV 04 05"},
		{"replacement", func(t *testing.T, a *kit.Arena) { a.Anon(t, 1, 1, kit.RW, 0) }, "01 00 SIGSEGV 04 05"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := guarded(t, anonymous, -1)
			c.do(t, a)
			assert.Equal(t, c.after, contents(a, kit.Me, 0, 5))
		})
	}
}

func TestGuardStaysThrough(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, a *kit.Arena)
	}{
		{"DONTNEED", func(t *testing.T, a *kit.Arena) { mustAdvise(t, a, 1, 2, unix.MADV_DONTNEED) }},
		{"FREE", func(t *testing.T, a *kit.Arena) { mustAdvise(t, a, 1, 2, unix.MADV_FREE) }},
		{"a second guard", func(t *testing.T, a *kit.Arena) { mustAdvise(t, a, 1, 2, guardInstall) }},
		{"mprotect", func(t *testing.T, a *kit.Arena) {
			require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(5), unix.PROT_READ))
			require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(5), kit.RW))
		}},
		{"a fork", func(t *testing.T, a *kit.Arena) {
			assert.Equal(t, "01 SIGSEGV SIGSEGV 04 05", contents(a, kit.Fork(t), 0, 5))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := guarded(t, anonymous, -1)
			c.do(t, a)
			assert.Equal(t, "01 SIGSEGV SIGSEGV 04 05", contents(a, kit.Me, 0, 5))
		})
	}
}

func TestGuardMoves(t *testing.T) {
	a := guarded(t, anonymous, -1)
	r := kit.Me.Mremap(a.Page(1), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(6))
	require.True(t, r.OK(), r)
	assert.Equal(t, "01 SIGSEGV SIGSEGV 04 05 SIGSEGV SIGSEGV SIGSEGV", contents(a, kit.Me, 0, 8))
}
