// MREMAP_DONTUNMAP moves the pages and leaves a mapping of the same kind, as if it were new.
package mremap

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestDontUnmap(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			for _, w := range []way{
				{"with-hint", 0, 4, 4, dontUnmap, 16, 0, "p16"},
				{"hint-is-taken", 0, 4, 4, dontUnmap, 16, 17, "elsewhere"},
				{"fixed", 0, 4, 4, dontUnmap | fixed, 16, 0, "p16"},
				{"middle", 1, 2, 2, dontUnmap | fixed, 16, 0, "p16"},
				{"over-other", 0, 4, 4, dontUnmap | fixed, 16, 16, "p16"},
			} {
				t.Run(w.name, func(t *testing.T) { remap(t, k, w) })
			}
		})
	}
}

func TestDontUnmapMovesTheLock(t *testing.T) {
	a := kit.NewArena(t, 26)
	a.Anon(t, 4, 4, kit.RW, unix.MAP_LOCKED)
	require.Equal(t, "p16", result(a, kit.Me.Mremap(a.Page(4), kit.Len(4), kit.Len(4), dontUnmap|unix.MREMAP_FIXED, a.Page(16))))
	assert.NotContains(t, strings.Fields(a.Smaps(t, kit.Me)[4]["VmFlags"]), "lo", "what is left")
	assert.Contains(t, strings.Fields(a.Smaps(t, kit.Me)[16]["VmFlags"]), "lo", "what moved")
}

// What changes the size, or stays where it is, is refused with MREMAP_DONTUNMAP.
func TestDontUnmapRefuses(t *testing.T) {
	for _, w := range []way{
		{"grow", 0, 4, 5, dontUnmap | fixed, 16, 0, "EINVAL"},
		{"shrink", 0, 4, 3, dontUnmap | fixed, 16, 0, "EINVAL"},
		{"no-may-move", 0, 4, 4, unix.MREMAP_DONTUNMAP, 16, 0, "EINVAL"},
		{"overlap", 0, 4, 4, dontUnmap | fixed, 6, 0, "EINVAL"},
	} {
		t.Run(w.name, func(t *testing.T) { remap(t, kinds[0], w) })
	}
}
