// These tests are about msync(2): what it refuses, what it does at holes, and what it stores.
package msync

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

func TestArguments(t *testing.T) {
	page := uintptr(kit.PageSize)
	at := func(i int, more uintptr) func(*kit.Arena) uintptr {
		return func(a *kit.Arena) uintptr { return a.Page(i) + more }
	}
	for _, c := range []struct {
		name   string
		addr   func(*kit.Arena) uintptr
		length uintptr
		flags  int
		want   unix.Errno
	}{
		{"MS_SYNC", at(0, 0), 2 * page, unix.MS_SYNC, 0},
		{"MS_ASYNC", at(0, 0), 2 * page, unix.MS_ASYNC, 0},
		{"MS_INVALIDATE", at(0, 0), 2 * page, unix.MS_INVALIDATE, 0},
		{"MS_SYNC and MS_INVALIDATE", at(0, 0), 2 * page, unix.MS_SYNC | unix.MS_INVALIDATE, 0},
		{"no flags", at(0, 0), 2 * page, 0, 0},
		{"MS_SYNC and MS_ASYNC", at(0, 0), 2 * page, unix.MS_SYNC | unix.MS_ASYNC, unix.EINVAL},
		{"unknown flag", at(0, 0), 2 * page, 8, unix.EINVAL},
		{"unknown flag, nothing mapped", at(4, 0), 2 * page, 8, unix.EINVAL},
		{"unaligned address", at(0, 1), page, unix.MS_SYNC, unix.EINVAL},
		{"unaligned address, nothing mapped", at(4, 1), page, unix.MS_SYNC, unix.EINVAL},
		{"unaligned length", at(1, 0), 1, unix.MS_SYNC, 0},
		{"unaligned length that reaches into a hole", at(1, 0), page + 1, unix.MS_SYNC, unix.ENOMEM},
		{"no length", at(0, 0), 0, unix.MS_SYNC, 0},
		{"no length, nothing mapped", at(4, 0), 0, unix.MS_SYNC, 0},
		{"nothing mapped", at(4, 0), page, unix.MS_SYNC, unix.ENOMEM},
		{"nothing mapped, MS_ASYNC", at(4, 0), page, unix.MS_ASYNC, unix.ENOMEM},
		{"hole at the end", at(0, 0), 3 * page, unix.MS_SYNC, unix.ENOMEM},
		{"hole at the start", at(-1, 0), 2 * page, unix.MS_SYNC, unix.ENOMEM},
		{"wraps around", at(0, 0), -page, unix.MS_SYNC, unix.ENOMEM},
		{"length that rounds up to nothing", at(0, 0), ^uintptr(0), unix.MS_SYNC, 0},
		{"the kernel's addresses", func(*kit.Arena) uintptr { return 1 << 63 }, page, unix.MS_SYNC, unix.ENOMEM},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, kit.File(t, 2), 0)
			a.Fill(t, 0, 2, 1)
			got := kit.Me.Msync(c.addr(a), c.length, c.flags)
			assert.Equal(t, c.want, got, kit.ErrnoName(got))
			kit.Say(t, "%s", kit.ErrnoName(got))
		})
	}
}

func TestEveryKindOfMapping(t *testing.T) {
	for _, c := range []struct {
		name        string
		prot, flags int
		file        bool
	}{
		{"anonymous", kit.RW, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, false},
		{"shared anonymous", kit.RW, unix.MAP_SHARED | unix.MAP_ANONYMOUS, false},
		{"private file", kit.RW, unix.MAP_PRIVATE, true},
		{"shared file", kit.RW, unix.MAP_SHARED, true},
		{"shared file, read only", unix.PROT_READ, unix.MAP_SHARED, true},
		{"shared file, no access", unix.PROT_NONE, unix.MAP_SHARED, true},
		{"no access", unix.PROT_NONE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			fd := -1
			if c.file {
				fd = kit.File(t, 2)
			}
			a.Map(t, 0, 2, c.prot, c.flags, fd, 0)
			assert.Zero(t, kit.Me.Msync(a.Page(0), kit.Len(2), unix.MS_SYNC))
			assert.Zero(t, kit.Me.Msync(a.Page(0), kit.Len(2), unix.MS_ASYNC|unix.MS_INVALIDATE))
		})
	}
}

func TestInvalidateRefusesLockedMemory(t *testing.T) {
	for _, c := range []struct {
		name   string
		flags  int
		locked int // page
		want   unix.Errno
	}{
		{"INVALIDATE", unix.MS_INVALIDATE, 1, unix.EBUSY},
		{"SYNC and INVALIDATE", unix.MS_SYNC | unix.MS_INVALIDATE, 1, unix.EBUSY},
		{"ASYNC and INVALIDATE", unix.MS_ASYNC | unix.MS_INVALIDATE, 1, unix.EBUSY},
		{"SYNC alone", unix.MS_SYNC, 1, 0},
		{"locked elsewhere", unix.MS_INVALIDATE, 4, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 6)
			a.Map(t, 0, 6, kit.RW, unix.MAP_SHARED, kit.File(t, 6), 0)
			require.Zero(t, kit.Me.Mlock(a.Page(c.locked), kit.Len(1)))
			got := kit.Me.Msync(a.Page(0), kit.Len(3), c.flags)
			assert.Equal(t, c.want, got, kit.ErrnoName(got))
			kit.Say(t, "%s", kit.ErrnoName(got))
		})
	}
}

// A locked mapping that comes after a hole is refused too: its error is the one that counts.
func TestErrorOfLockedMemoryComesBeforeThatOfHole(t *testing.T) {
	a := kit.NewArena(t, 4)
	fd := kit.File(t, 4)
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	a.Map(t, 2, 2, kit.RW, unix.MAP_SHARED|unix.MAP_LOCKED, fd, 2)
	assert.Equal(t, unix.EBUSY, kit.Me.Msync(a.Page(0), kit.Len(4), unix.MS_INVALIDATE))
	assert.Equal(t, unix.ENOMEM, kit.Me.Msync(a.Page(0), kit.Len(4), unix.MS_SYNC))
}
