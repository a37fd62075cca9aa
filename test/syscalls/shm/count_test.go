// These tests claim how attaches are counted, when a removed segment is gone, and which times and processes
// are noted.
package shm

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

const moving = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED

// countings are what may happen to an attach, and how many there are then. Linux counts mappings: each piece of
// an attach that was split is one.
var countings = []struct {
	name string
	do   func(t *testing.T, a *kit.Arena, id uintptr) // with four pages attached at page 0
	want int
}{
	{"one", func(*testing.T, *kit.Arena, uintptr) {}, 1},
	{"two", func(t *testing.T, a *kit.Arena, id uintptr) { mustAttach(t, a, id, 4) }, 2},
	{"detached", func(t *testing.T, a *kit.Arena, _ uintptr) { require.Zero(t, detach(kit.Me, a.Page(0))) }, 0},
	{"unmapped", func(t *testing.T, a *kit.Arena, _ uintptr) { require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(4))) }, 0},
	{"unmapped at the start", func(t *testing.T, a *kit.Arena, _ uintptr) { require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(1))) }, 1},
	{"unmapped in the middle", func(t *testing.T, a *kit.Arena, _ uintptr) { require.Zero(t, kit.Me.Munmap(a.Page(1), kit.Len(1))) }, 2},
	{"protected in the middle", func(t *testing.T, a *kit.Arena, _ uintptr) {
		require.Zero(t, kit.Me.Mprotect(a.Page(1), kit.Len(1), unix.PROT_READ))
	}, 3},
	{"protected and back", func(t *testing.T, a *kit.Arena, _ uintptr) {
		require.Zero(t, kit.Me.Mprotect(a.Page(1), kit.Len(1), unix.PROT_READ))
		require.Zero(t, kit.Me.Mprotect(a.Page(1), kit.Len(1), kit.RW))
		require.Zero(t, detach(kit.Me, a.Page(0)))
	}, 0},
	{"replaced", func(t *testing.T, a *kit.Arena, _ uintptr) { a.Anon(t, 0, 4, kit.RW, 0) }, 0},
	{"replaced at the end", func(t *testing.T, a *kit.Arena, _ uintptr) { a.Anon(t, 2, 2, kit.RW, 0) }, 1},
	{"moved", func(t *testing.T, a *kit.Arena, _ uintptr) {
		require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(4), kit.Len(4), moving, a.Page(6)).OK())
	}, 1},
	{"half moved away", func(t *testing.T, a *kit.Arena, _ uintptr) {
		require.True(t, kit.Me.Mremap(a.Page(2), kit.Len(2), kit.Len(2), moving, a.Page(6)).OK())
	}, 2},
	{"moved onto itself", func(t *testing.T, a *kit.Arena, id uintptr) {
		mustAttach(t, a, id, 6)
		require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(4), kit.Len(4), moving, a.Page(6)).OK())
	}, 1},
	{"doubled by mremap", func(t *testing.T, a *kit.Arena, _ uintptr) {
		require.True(t, kit.Me.Mremap(a.Page(0), 0, kit.Len(4), moving, a.Page(6)).OK())
	}, 2},
	{"a child's", func(t *testing.T, _ *kit.Arena, _ uintptr) { kit.Fork(t) }, 2},
	{"a child's child's", func(t *testing.T, _ *kit.Arena, _ uintptr) { kit.Fork(t).Fork(t) }, 3},
	{"a child's, detached", func(t *testing.T, a *kit.Arena, _ uintptr) { require.Zero(t, detach(kit.Fork(t), a.Page(0))) }, 1},
	{"a child's that has ended", func(t *testing.T, _ *kit.Arena, _ uintptr) { kit.Fork(t).Exit(t, 0) }, 1},
	{"a child's that was killed", func(t *testing.T, _ *kit.Arena, _ uintptr) {
		child := kit.Fork(t)
		require.NoError(t, unix.Kill(child.Pid(), unix.SIGKILL))
		child.Reap(t)
	}, 1},
	{"not inherited", func(t *testing.T, a *kit.Arena, _ uintptr) {
		require.Zero(t, kit.Me.Madvise(a.Page(0), kit.Len(4), unix.MADV_DONTFORK))
		kit.Fork(t)
	}, 1},
	{"failed", func(t *testing.T, a *kit.Arena, id uintptr) {
		require.False(t, attach(kit.Me, id, 0, shmRemap).OK())
	}, 1}}

func TestAttachesAreCounted(t *testing.T) {
	for _, c := range countings {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 12)
			id := segment(t, 4)
			mustAttach(t, a, id, 0)
			c.do(t, a, id)
			assert.Equal(t, c.want, attaches(t, id))
			kit.Say(t, "%d", attaches(t, id))
		})
	}
}

func TestRemovedWhileAttached(t *testing.T) {
	a := kit.NewArena(t, 6)
	id := segmentOf(t, unusedKey, kit.Len(2), 0o600)
	mustAttach(t, a, id, 0)
	a.Fill(t, 0, 2, 1)
	child := kit.Fork(t)
	require.Zero(t, remove(kit.Me, id))
	desc := stat(t, id)
	assert.Equal(t, shmDest|0o600, int(desc.Perm.Mode))
	assert.Zero(t, desc.Perm.Key, "its key is free")
	assert.Equal(t, 2, int(desc.Nattch))
	assert.Equal(t, unix.ENOENT, get(kit.Me, unusedKey, 0, 0).Errno)
	assert.Equal(t, "01 02", contents(a, child, 0, 2))
	mustAttach(t, a, id, 4) // Linux allows it as long as it is there
	require.Zero(t, detach(kit.Me, a.Page(0)))
	require.Zero(t, detach(kit.Me, a.Page(4)))
	assert.False(t, gone(id), "the child's is left")
	child.Exit(t, 0)
	assert.True(t, gone(id))
}

func TestKeyOfARemovedSegmentCanBeUsedAgain(t *testing.T) {
	a := kit.NewArena(t, 4)
	old := segmentOf(t, unusedKey, kit.Len(1), 0o600)
	mustAttach(t, a, old, 0)
	require.Zero(t, remove(kit.Me, old))
	id := segmentOf(t, unusedKey, kit.Len(2), 0o600)
	assert.NotEqual(t, old, id)
	mustAttach(t, a, id, 2)
	a.Fill(t, 0, 1, 1)
	assert.Equal(t, "01 SIGSEGV 00 00", contents(a, kit.Me, 0, 4))
}

func TestRemovedIsGoneWithItsLastPiece(t *testing.T) {
	a := kit.NewArena(t, 4)
	id := segment(t, 3)
	mustAttach(t, a, id, 0)
	require.Zero(t, remove(kit.Me, id))
	require.Zero(t, kit.Me.Munmap(a.Page(1), kit.Len(1)))
	assert.False(t, gone(id))
	a.Anon(t, 0, 1, kit.RW, 0)
	assert.False(t, gone(id))
	require.Zero(t, kit.Me.Munmap(a.Page(2), kit.Len(1)))
	assert.True(t, gone(id))
}

func TestTimesAndProcesses(t *testing.T) {
	a := kit.NewArena(t, 2)
	id := segment(t, 2)
	child := kit.Fork(t)
	made := stat(t, id)
	require.True(t, attach(child, id, a.Page(0), 0).OK())
	attached := stat(t, id)
	assert.Equal(t, child.Pid(), int(attached.Lpid))
	assert.GreaterOrEqual(t, attached.Atime, made.Ctime)
	assert.Zero(t, attached.Dtime)
	assert.Equal(t, made.Ctime, attached.Ctime)
	require.Zero(t, detach(child, a.Page(0)))
	detached := stat(t, id)
	assert.Equal(t, child.Pid(), int(detached.Lpid))
	assert.GreaterOrEqual(t, detached.Dtime, attached.Atime)
	assert.Equal(t, attached.Atime, detached.Atime)
	mustAttach(t, a, id, 0)
	again := stat(t, id)
	assert.Equal(t, kit.Me.Pid(), int(again.Lpid))
	assert.Equal(t, kit.Me.Pid(), int(again.Cpid))
	assert.Equal(t, detached.Dtime, again.Dtime)
}

func TestExitDetaches(t *testing.T) {
	a := kit.NewArena(t, 2)
	id := segment(t, 2)
	child := kit.Fork(t)
	require.True(t, attach(child, id, a.Page(0), 0).OK())
	before := stat(t, id)
	child.Exit(t, 0)
	after := stat(t, id)
	assert.Zero(t, after.Nattch)
	assert.GreaterOrEqual(t, after.Dtime, before.Atime)
}
