// These tests claim that generations and crowds of children each have their own memory, and that the end of
// one takes nothing from the others.
package fork

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestGenerations(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 1)
	family := []*kit.Actor{kit.Me}
	for i := range 4 {
		next := family[i].Fork(t)
		require.False(t, next.Store(a.Page(i), 0x10+byte(i)).Faulted())
		family = append(family, next)
	}
	for i, want := range []string{"01 02 03 04", "10 02 03 04", "10 11 03 04", "10 11 12 04", "10 11 12 13"} {
		assert.Equal(t, want, contents(a, family[i], 0, 4), "generation %d", i)
	}
	a.Fill(t, 0, 4, 0x20)
	require.False(t, family[2].Store(a.Page(3), 0x30).Faulted())
	for i, want := range []string{"20 21 22 23", "10 02 03 04", "10 11 03 30", "10 11 12 04", "10 11 12 13"} {
		assert.Equal(t, want, contents(a, family[i], 0, 4), "generation %d", i)
	}
}

func TestOrphanKeepsItsMemory(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 1)
	child := kit.Fork(t)
	require.False(t, child.Store(a.Page(0), 5).Faulted())
	grandchild := child.Fork(t)
	child.Exit(t, 0)
	a.Fill(t, 0, 2, 8)
	assert.Equal(t, "05 02", contents(a, grandchild, 0, 2))
	require.False(t, grandchild.Store(a.Page(1), 6).Faulted())
	assert.Equal(t, "05 06", contents(a, grandchild, 0, 2))
	assert.Equal(t, "08 09", contents(a, kit.Me, 0, 2))
}

func TestSharedMemoryReachesAllGenerations(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Map(t, 0, 3, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
	child := kit.Fork(t)
	grandchild := child.Fork(t)
	a.Fill(t, 0, 1, 1)
	require.False(t, child.Store(a.Page(1), 2).Faulted())
	require.False(t, grandchild.Store(a.Page(2), 3).Faulted())
	for _, actor := range []*kit.Actor{kit.Me, child, grandchild} {
		assert.Equal(t, "01 02 03", contents(a, actor, 0, 3))
	}
	child.Exit(t, 0)
	require.False(t, grandchild.Store(a.Page(0), 9).Faulted())
	assert.Equal(t, "09 02 03", contents(a, kit.Me, 0, 3))
}

func TestManyChildrenSideBySide(t *testing.T) {
	const children = 16
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 0xee)
	var all []*kit.Actor
	for i := range children {
		child := kit.Fork(t)
		require.False(t, child.Store(a.Page(0), byte(i)).Faulted())
		all = append(all, child)
	}
	for i, child := range all {
		require.Equal(t, fmt.Sprintf("%02x ef", i), contents(a, child, 0, 2))
	}
	for i, child := range all {
		if i%2 == 0 {
			child.Exit(t, 0)
		}
	}
	for i, child := range all {
		if i%2 == 1 {
			require.Equal(t, fmt.Sprintf("%02x ef", i), contents(a, child, 0, 2))
		}
	}
	assert.Equal(t, "ee ef", contents(a, kit.Me, 0, 2))
}

func TestManyChildrenOneAfterTheOther(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	for i := range 12 {
		a.Fill(t, 0, 1, byte(i))
		child := kit.Fork(t)
		require.False(t, child.Store(a.Page(1), 0xff).Faulted())
		require.Equal(t, fmt.Sprintf("%02x ff", i), contents(a, child, 0, 2))
		require.Equal(t, i, child.Exit(t, i).ExitStatus())
		require.Equal(t, fmt.Sprintf("%02x 00", i), contents(a, kit.Me, 0, 2))
	}
}
