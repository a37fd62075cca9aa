// Merging after mremap with a wrong page offset: pages that moved next to others kept their contents
// while they were there, and lost them, or showed others, once they had to be found again by offset.
package broken

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

const fixed = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED

func move(t *testing.T, actor *kit.Actor, a *kit.Arena, from, n, to int) {
	t.Helper()
	require.Equal(t, kit.Result{Value: a.Page(to)}, actor.Mremap(a.Page(from), kit.Len(n), kit.Len(n), fixed, a.Page(to)))
}

// A file of eight pages is mapped, taken apart, and put together again in every order of two moves.
func TestFilePagesAreFoundByOffset(t *testing.T) {
	for name, flags := range map[string]int{"shared": unix.MAP_SHARED, "private": unix.MAP_PRIVATE} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				name  string
				moves [][3]int // from, pages, to
				want  []int    // file pages at 8 and on; -1 for nothing
			}{
				{"away-and-back", [][3]int{{10, 2, 24}, {24, 2, 10}}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
				{"halves", [][3]int{{12, 4, 24}, {24, 4, 12}}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
				{"closer", [][3]int{{10, 2, 24}, {8, 2, 22}, {22, 4, 8}}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
				{"swapped", [][3]int{{8, 2, 24}, {10, 2, 8}, {24, 2, 10}}, []int{2, 3, 0, 1, 4, 5, 6, 7}},
				{"one-over", [][3]int{{10, 1, 24}, {24, 1, 11}}, []int{0, 1, -1, 2, 4, 5, 6, 7}},
				{"last-to-first", [][3]int{{15, 1, 24}, {24, 1, 8}}, []int{7, 1, 2, 3, 4, 5, 6, -1}},
				{"first-over-last", [][3]int{{8, 1, 24}, {24, 1, 15}}, []int{-1, 1, 2, 3, 4, 5, 6, 0}},
			} {
				t.Run(c.name, func(t *testing.T) {
					a := kit.NewArena(t, 32)
					a.Map(t, 8, 8, kit.RW, flags, kit.Memfd(t, 8, 0), 0)
					for _, m := range c.moves {
						move(t, kit.Me, a, m[0], m[1], m[2])
					}
					var want []string
					for _, page := range c.want {
						if page < 0 {
							want = append(want, "SIGSEGV/MAPERR")
						} else {
							want = append(want, fmt.Sprintf("%02x", kit.PageByte(page)))
						}
					}
					kit.Say(t, "%q", a.Layout(t, kit.Me))
					assert.Equal(t, want, a.Bytes(kit.Me, 8, 8))
					for i := range 8 {
						kit.Me.Madvise(a.Page(8+i), kit.Len(1), unix.MADV_DONTNEED)
					}
					assert.Equal(t, want, a.Bytes(kit.Me, 8, 8), "found again")
					assert.Equal(t, want, a.Bytes(kit.Fork(t), 8, 8), "in a child")
				})
			}
		})
	}
}

// Anonymous pages have an offset too: where they were when they were first written to. A child and its
// parent, and what fork does to either, must agree on it.
func TestAnonymousPagesAreFoundAfterForks(t *testing.T) {
	a := kit.NewArena(t, 32)
	a.Anon(t, 8, 6, kit.RW, 0)
	a.Fill(t, 8, 6, 0x10)
	move(t, kit.Me, a, 10, 2, 24)
	child := kit.Fork(t)
	move(t, child, a, 24, 2, 10)
	move(t, kit.Me, a, 24, 2, 14)
	grandchild := child.Fork(t)
	require.False(t, child.Store(a.Page(10), 0xaa).Faulted())
	require.False(t, grandchild.Store(a.Page(11), 0xbb).Faulted())
	require.False(t, kit.Me.Store(a.Page(14), 0xcc).Faulted())
	const gone = "SIGSEGV/MAPERR"
	assert.Equal(t, []string{"10", "11", gone, gone, "14", "15", "cc", "13"}, a.Bytes(kit.Me, 8, 8))
	assert.Equal(t, []string{"10", "11", "aa", "13", "14", "15", gone, gone}, a.Bytes(child, 8, 8))
	assert.Equal(t, []string{"10", "11", "12", "bb", "14", "15", gone, gone}, a.Bytes(grandchild, 8, 8))
}

// A move between two neighbours that continue it on both sides makes one of three; protecting, locking and
// unmapping parts of it then cut where they should.
func TestPartsOfAMergedMapping(t *testing.T) {
	a := kit.NewArena(t, 32)
	fd := kit.Memfd(t, 8, 0)
	a.Map(t, 8, 3, kit.RW, unix.MAP_SHARED, fd, 0)
	a.Map(t, 13, 3, kit.RW, unix.MAP_SHARED, fd, 5)
	a.Map(t, 24, 2, kit.RW, unix.MAP_SHARED, fd, 3)
	move(t, kit.Me, a, 24, 2, 11)
	assert.Equal(t, []string{"p8-p16 rw-s 0 memfd:kit (deleted)"}, a.Layout(t, kit.Me))
	require.Zero(t, kit.Me.Mprotect(a.Page(10), kit.Len(2), unix.PROT_READ))
	require.Zero(t, kit.Me.Munmap(a.Page(13), kit.Len(1)))
	assert.Equal(t, []string{
		"p8-p10 rw-s 0 memfd:kit (deleted)", "p10-p12 r--s 2 memfd:kit (deleted)",
		"p12-p13 rw-s 4 memfd:kit (deleted)", "p14-p16 rw-s 6 memfd:kit (deleted)",
	}, a.Layout(t, kit.Me))
	assert.Equal(t, []string{"41", "42", "43", "44", "45", "SIGSEGV/MAPERR", "47", "48"}, a.Bytes(kit.Me, 8, 8))
}
