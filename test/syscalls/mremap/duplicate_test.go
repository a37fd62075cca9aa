// An old size of 0 makes a second mapping of shared memory, and is refused for private memory.
package mremap

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestOldSizeZero(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			for _, w := range []way{
				{"copy", 0, 0, 4, may, 0, 0, "elsewhere"},
				{"copy-fixed", 0, 0, 4, fixed, 16, 0, "p16"},
				{"copy-part", 1, 0, 2, fixed, 16, 0, "p16"},
				{"copy-more", 0, 0, 6, fixed, 16, 0, "p16"},
				{"copy-over-other", 0, 0, 4, fixed, 16, 17, "p16"},
				{"no-move", 0, 0, 4, 0, 0, 0, "ENOMEM"},
				{"leave", 0, 0, 4, dontUnmap, 0, 0, "EINVAL"},
			} {
				if !k.shared {
					w.want = "EINVAL"
				}
				t.Run(w.name, func(t *testing.T) { duplicate(t, k, w) })
			}
		})
	}
}

func duplicate(t *testing.T, k kind, w way) {
	a := kit.NewArena(t, 26)
	k.make(t, a)
	a.Fill(t, first, size, 0x10)
	if w.obstacle != 0 {
		a.Anon(t, w.obstacle, 1, unix.PROT_READ, 0)
	}
	r := kit.Me.Mremap(a.Page(first+w.from), 0, kit.Len(w.new), w.flags, a.Page(w.to))
	kit.Say(t, "%s", result(a, r))
	kit.Say(t, "%q", layout(t, a))
	require.Equal(t, w.want, result(a, r))
	assert.Equal(t, []string{"10", "11", "12", "13"}, contents(kit.Me, a.Page(first), size), "the original stays")
	if !r.OK() {
		return
	}
	if w.want == "elsewhere" {
		unmapAfter(t, r.Value, w.new)
	}
	assert.Equal(t, expectAt(k, w), contents(kit.Me, r.Value, w.new))
	require.False(t, kit.Me.Store(r.Value, 0x99).Faulted())
	assert.Equal(t, []string{"99"}, contents(kit.Me, a.Page(first+w.from), 1), "a write to one is seen in the other")
	require.Zero(t, kit.Me.Munmap(a.Page(first), kit.Len(size)))
	assert.Equal(t, []string{"99"}, contents(kit.Me, r.Value, 1), "the copy outlives the original")
}
