// Claims that permission to write is no permission to write to other people's pages: copy-on-write after
// mprotect, for files and after fork, and what a shared mapping's descriptor allows.
package mprotect

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// fileByte is what a file holds at an offset.
func fileByte(t testing.TB, fd int, offset uintptr) byte {
	t.Helper()
	var b [1]byte
	_, err := unix.Pread(fd, b[:], int64(offset))
	require.NoError(t, err)
	return b[0]
}

// A private file page that becomes writable is copied when it is written to.
func TestPrivateFilePageIsCopied(t *testing.T) {
	for name, touch := range map[string]bool{"untouched": false, "after a load": true} {
		t.Run(name, func(t *testing.T) {
			kit.EachDir(t, func(t *testing.T, d kit.Dir) {
				a := kit.NewArena(t, 2)
				fd := d.File(t, 1)
				a.Map(t, 0, 1, ro, unix.MAP_PRIVATE, fd, 0)
				a.Map(t, 1, 1, ro, unix.MAP_SHARED, fd, 0)
				if touch {
					a.Bytes(kit.Me, 0, 2)
				}
				protect(t, a, 0, 1, rw)
				assert.False(t, kit.Me.Store(a.Page(0), 7).Faulted())
				kit.Say(t, "%v", a.Bytes(kit.Me, 0, 2))
				assert.Equal(t, []string{"07", "41"}, a.Bytes(kit.Me, 0, 2))
				assert.Equal(t, byte('A'), fileByte(t, fd, 0))
			})
		})
	}
}

// A copy stays a copy when it is protected and made writable again.
func TestCopyStaysACopy(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, rw, unix.MAP_PRIVATE, fd, 0)
		a.Fill(t, 0, 1, 7)
		for _, prot := range []int{ro, none, rw} {
			protect(t, a, 0, 2, prot)
		}
		a.Fill(t, 1, 1, 8)
		kit.Say(t, "%v", a.Bytes(kit.Me, 0, 2))
		assert.Equal(t, []string{"07", "08"}, a.Bytes(kit.Me, 0, 2))
		assert.Equal(t, byte('A'), fileByte(t, fd, 0))
		assert.Equal(t, byte('B'), fileByte(t, fd, kit.Len(1)))
	})
}

// A shared page that becomes writable is written through.
func TestSharedPageIsWrittenThrough(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, ro, unix.MAP_SHARED, fd, 0)
		a.Bytes(kit.Me, 0, 2)
		protect(t, a, 1, 1, rw)
		assert.False(t, kit.Me.Store(a.Page(1), 7).Faulted())
		assert.Equal(t, byte(7), fileByte(t, fd, kit.Len(1)))
		protect(t, a, 1, 1, ro)
		assert.True(t, kit.Me.Store(a.Page(1), 8).Faulted())
	})
}

// After fork, neither side's mprotect lets it write to the other's page.
func TestForkedPagesAreCopiedAfterMprotect(t *testing.T) {
	for name, c := range map[string]struct{ before, between int }{
		"read-only while forking":   {ro, rw},
		"writable while forking":    {rw, rw},
		"without access while so":   {none, rw},
		"protected in between":      {rw, ro},
		"without access in between": {rw, none},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			a.Anon(t, 0, 2, rw, 0)
			a.Fill(t, 0, 2, 1)
			protect(t, a, 0, 2, c.before)
			child := kit.Fork(t)
			for _, actor := range []*kit.Actor{kit.Me, child} {
				require.Zero(t, actor.Mprotect(a.Base, kit.Len(2), c.between))
				require.Zero(t, actor.Mprotect(a.Base, kit.Len(2), rw))
			}
			assert.False(t, kit.Me.Store(a.Page(0), 7).Faulted())
			assert.False(t, child.Store(a.Page(1), 8).Faulted())
			kit.Say(t, "parent %v child %v", a.Bytes(kit.Me, 0, 2), a.Bytes(child, 0, 2))
			assert.Equal(t, []string{"07", "02"}, a.Bytes(kit.Me, 0, 2))
			assert.Equal(t, []string{"01", "08"}, a.Bytes(child, 0, 2))
		})
	}
}

// A page of zeros is nobody's to write to.
func TestZeroPageIsCopied(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, ro, 0)
	assert.Equal(t, []string{"00", "00"}, a.Bytes(kit.Me, 0, 2))
	protect(t, a, 0, 1, rw)
	a.Fill(t, 0, 1, 7)
	assert.Equal(t, []string{"07", "00"}, a.Bytes(kit.Me, 0, 2))
}

// A shared mapping's descriptor decides for ever what it may become.
func TestDescriptorDecides(t *testing.T) {
	for mode, m := range map[string]int{"O_RDONLY": unix.O_RDONLY, "O_RDWR": unix.O_RDWR} {
		for kind, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
			for protection, prot := range map[string]int{"none": none, "read": ro, "write": unix.PROT_WRITE, "read write": rw, "exec": rx} {
				t.Run(mode+" "+kind+" "+protection, func(t *testing.T) {
					kit.EachDir(t, func(t *testing.T, d kit.Dir) {
						a := kit.NewArena(t, 1)
						a.Map(t, 0, 1, none, flags, kit.Open(t, d.NamedFile(t, 1), m), 0)
						want := unix.Errno(0)
						if m == unix.O_RDONLY && flags == unix.MAP_SHARED && prot&unix.PROT_WRITE != 0 {
							want = unix.EACCES
						}
						e := kit.Me.Mprotect(a.Base, kit.Len(1), prot)
						kit.Say(t, "%s", kit.ErrnoName(e))
						assert.Equal(t, want, e)
					})
				})
			}
		}
	}
}

// smaps shows what it may become: "mw" is missing.
func TestVmFlagsOfAReadOnlyDescriptor(t *testing.T) {
	a := kit.NewArena(t, 2)
	path := kit.Dirs()[0].NamedFile(t, 1)
	a.Map(t, 0, 1, ro, unix.MAP_SHARED, kit.Open(t, path, unix.O_RDONLY), 0)
	a.Map(t, 1, 1, ro, unix.MAP_SHARED, kit.Open(t, path, unix.O_RDWR), 0)
	smaps := a.Smaps(t, kit.Me)
	assert.NotContains(t, smaps[0]["VmFlags"], "mw")
	assert.Contains(t, smaps[1]["VmFlags"], "mw")
}

// A sealed memfd gives no permission to write, at once or later.
func TestSealedMemfd(t *testing.T) {
	a := kit.NewArena(t, 2)
	fd := kit.Memfd(t, 1, unix.MFD_ALLOW_SEALING)
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	require.NoError(t, err)
	a.Map(t, 0, 1, ro, unix.MAP_SHARED, fd, 0)
	a.Map(t, 1, 1, ro, unix.MAP_PRIVATE, fd, 0)
	e := kit.Me.Mprotect(a.Page(0), kit.Len(1), rw)
	kit.Say(t, "%s", kit.ErrnoName(e))
	assert.Equal(t, unix.EACCES, e)
	protect(t, a, 1, 1, rw)
	assert.False(t, kit.Me.Store(a.Page(1), 7).Faulted(), "a private mapping may")
}
