// These tests claim that a fork copes with address spaces that are large, or made of many mappings, and with
// huge pages.
package fork

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestManyMappings(t *testing.T) {
	const n = 600
	a := kit.NewArena(t, 2*n)
	for i := range n {
		a.Anon(t, 2*i, 1, kit.RW, 0)
		a.Fill(t, 2*i, 1, byte(i))
	}
	child := kit.Fork(t)
	assert.Len(t, a.Maps(t, child), n)
	for i := range n {
		require.False(t, kit.Me.Store(a.Page(2*i), 0xff).Faulted())
	}
	for i := range n {
		require.Equal(t, uint64(byte(i)), child.Load(a.Page(2*i)).Value, "mapping %d", i)
	}
	require.True(t, child.Load(a.Page(1)).Faulted())
}

// Pages here and there in a reservation of a terabyte.
func TestLargeReservation(t *testing.T) {
	const pages, touched = 1 << 28, 64
	a := kit.NewArena(t, pages)
	a.Anon(t, 0, pages, unix.PROT_NONE, unix.MAP_NORESERVE)
	const step = pages / touched
	for i := range touched {
		require.Zero(t, kit.Me.Mprotect(a.Page(i*step), kit.Len(2), kit.RW))
		a.Fill(t, i*step, 2, byte(i))
	}
	child := kit.Fork(t)
	for i := range touched {
		require.False(t, kit.Me.Store(a.Page(i*step), 0xff).Faulted())
		require.Equal(t, []string{hex(i), hex(i + 1)}, a.Bytes(child, i*step, 2))
	}
	assert.True(t, child.Load(a.Page(step/2)).Faulted())
	assert.Equal(t, a.Layout(t, kit.Me), a.Layout(t, child))
}

func hex(i int) string { return string([]byte{"0123456789abcdef"[i>>4&15], "0123456789abcdef"[i&15]}) }

func TestMuchMemory(t *testing.T) {
	const pages = 8192
	a := kit.NewArena(t, pages)
	a.Anon(t, 0, pages, kit.RW, 0)
	for i := range pages {
		*word(a, i) = uint64(i)
	}
	child := kit.Fork(t)
	for i := range pages {
		*word(a, i) = 1 << 40
	}
	for i := 0; i < pages; i += 61 {
		require.Equal(t, uint64(i), child.Load64(a.Page(i)).Value, "page %d", i)
	}
}

func TestHugePages(t *testing.T) {
	if kit.PageSize != 4096 {
		t.Skip("pages of another size")
	}
	const huge = kit.HugeSize / 4096
	a := kit.NewArena(t, 3*huge)
	a.Anon(t, 0, 3*huge, kit.RW, 0)
	require.Zero(t, kit.Me.Madvise(a.Page(0), kit.Len(3*huge), unix.MADV_HUGEPAGE))
	for i := range 3 * huge {
		*word(a, i) = uint64(i)
	}
	child := kit.Fork(t)
	*word(a, 7) = 1 << 40
	require.Zero(t, kit.Me.Munmap(a.Page(huge+9), kit.Len(5)))
	require.False(t, child.Store64(a.Page(2*huge+3), 1<<41).Faulted())
	for i := range 3 * huge {
		its, mine := uint64(i), uint64(i)
		switch {
		case i == 7:
			mine = 1 << 40
		case i == 2*huge+3:
			its = 1 << 41
		}
		require.Equal(t, its, child.Load64(a.Page(i)).Value, "page %d of the child", i)
		if i >= huge+9 && i < huge+14 {
			require.True(t, kit.Me.Load64(a.Page(i)).Faulted())
		} else {
			require.Equal(t, mine, kit.Me.Load64(a.Page(i)).Value, "page %d of the parent", i)
		}
	}
}
