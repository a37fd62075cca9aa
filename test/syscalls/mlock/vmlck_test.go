// These tests claim that VmLck in /proc/[pid]/status is what is locked, in kilobytes of address space.
package mlock

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestStatusCountsLockedMemory(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(a *kit.Arena) // on four pages that are mapped and not locked
		want string
	}{
		{"nothing", func(*kit.Arena) {}, "0 kB"},
		{"mlock", func(a *kit.Arena) { kit.Me.Mlock(a.Page(1), kit.Len(2)) }, "8 kB"},
		{"on fault", func(a *kit.Arena) { kit.Me.Mlock2(a.Page(1), kit.Len(3), unix.MLOCK_ONFAULT) }, "12 kB"},
		{"twice", func(a *kit.Arena) { kit.Me.Mlock(a.Page(0), kit.Len(3)); kit.Me.Mlock(a.Page(1), kit.Len(3)) }, "16 kB"},
		{"munlock", func(a *kit.Arena) { kit.Me.Mlock(a.Page(0), kit.Len(4)); kit.Me.Munlock(a.Page(1), kit.Len(1)) }, "12 kB"},
		{"munmap", func(a *kit.Arena) { kit.Me.Mlock(a.Page(0), kit.Len(4)); kit.Me.Munmap(a.Page(1), kit.Len(2)) }, "8 kB"},
		{"beyond a hole", func(a *kit.Arena) { kit.Me.Mlock(a.Page(2), kit.Len(4)) }, "8 kB"},
		{"no access", func(a *kit.Arena) {
			kit.Me.Mprotect(a.Page(0), kit.Len(4), unix.PROT_NONE)
			kit.Me.Mlock(a.Page(0), kit.Len(4))
		}, "16 kB"},
		{"moved and grown", func(a *kit.Arena) {
			kit.Me.Mlock(a.Page(0), kit.Len(2))
			kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(3), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(8))
		}, "12 kB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 12)
			a.Anon(t, 0, 4, kit.RW, 0)
			c.do(a)
			got := kit.Status(t, kit.Me, "VmLck")
			assert.Equal(t, c.want, got)
			kit.Say(t, "VmLck %s", got)
		})
	}
}

func TestStatusOfChildCountsNothing(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, unix.MAP_LOCKED)
	child := kit.Fork(t)
	assert.Equal(t, "0 kB", kit.Status(t, child, "VmLck"))
	assert.Equal(t, "16 kB", kit.Status(t, kit.Me, "VmLck"))
}
