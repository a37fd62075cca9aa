// These tests claim that pages which were touched are resident. A machine that is short of memory could take
// them away again; locking them keeps it from that where it matters.
package mincore

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestTouchedPagesAreResident(t *testing.T) {
	for _, c := range []struct {
		name        string
		prot, flags int
		file        func(t *testing.T) int
		write       bool
	}{
		{"anonymous, written", kit.RW, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil, true},
		{"anonymous, read", kit.RW, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil, false},
		{"shared anonymous", kit.RW, unix.MAP_SHARED | unix.MAP_ANONYMOUS, nil, true},
		{"private file, written", kit.RW, unix.MAP_PRIVATE, diskFile, true},
		{"private file, read", kit.RW, unix.MAP_PRIVATE, diskFile, false},
		{"shared file", kit.RW, unix.MAP_SHARED, diskFile, true},
		{"memfd", kit.RW, unix.MAP_SHARED, memfd, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 3)
			fd := -1
			if c.file != nil {
				fd = c.file(t)
			}
			a.Map(t, 0, 3, c.prot, c.flags, fd, 0)
			if c.write {
				a.Fill(t, 0, 3, 1)
			} else {
				a.Bytes(kit.Me, 0, 3)
			}
			assert.Equal(t, "111", residency(t, a, 0, 3))
		})
	}
}

func diskFile(t *testing.T) int { return kit.File(t, 3) }
func memfd(t *testing.T) int    { return kit.Memfd(t, 3, 0) }

func TestResidentThoughNotAccessible(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Anon(t, 0, 3, kit.RW, 0)
	a.Fill(t, 0, 3, 1)
	require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(3), unix.PROT_NONE))
	assert.Equal(t, "111", residency(t, a, 0, 3))
}

func TestPopulatedIsResident(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 3, kit.RW, unix.MAP_POPULATE)
	a.Anon(t, 3, 3, kit.RW, unix.MAP_LOCKED)
	assert.Equal(t, "111111", residency(t, a, 0, 6))
}

// What is in the page cache is resident for a mapping that nobody has touched.
func TestPageCacheIsResident(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 3)
		a.Map(t, 0, 3, unix.PROT_READ, unix.MAP_SHARED, d.File(t, 3), 0)
		assert.Equal(t, "111", residency(t, a, 0, 3))
	})
}

func TestMovedPagesAreResident(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 3, kit.RW, 0)
	a.Fill(t, 0, 3, 1)
	r := kit.Me.Mremap(a.Page(0), kit.Len(3), kit.Len(3), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(3))
	require.True(t, r.OK(), r)
	assert.Equal(t, "111", residency(t, a, 3, 3))
}

func TestMappingsSideBySide(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 2, kit.RW, unix.MAP_POPULATE)
	a.Map(t, 2, 2, kit.RW, unix.MAP_SHARED, memfd(t), 0)
	a.Anon(t, 4, 2, unix.PROT_READ, unix.MAP_POPULATE)
	assert.Equal(t, "111111", residency(t, a, 0, 6))
}
