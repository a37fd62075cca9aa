// Claims that MAP_POPULATE and MAP_LOCKED bring the pages in, that nothing goes wrong where there are none, and
// what is counted.
package mmap

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// resident is how many pages of [i, i+n) mincore reports.
func resident(t testing.TB, a *kit.Arena, i, n int) int {
	t.Helper()
	vec := make([]byte, n)
	require.Zero(t, kit.Me.Mincore(a.Page(i), kit.Len(n), vec))
	count := 0
	for _, b := range vec {
		count += int(b & 1)
	}
	return count
}

// kilobytes is the number in a field of smaps.
func kilobytes(t testing.TB, field string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSuffix(field, " kB"))
	require.NoError(t, err, "%q", field)
	return n
}

func TestPopulatedPagesAreResident(t *testing.T) {
	for name, c := range map[string]struct {
		prot, flags int
		file        bool
	}{
		"anonymous":            {rw, anon | unix.MAP_POPULATE, false},
		"anonymous read-only":  {ro, anon | unix.MAP_POPULATE, false},
		"shared memory":        {rw, shared | unix.MAP_POPULATE, false},
		"private file":         {rw, unix.MAP_PRIVATE | unix.MAP_POPULATE, true},
		"private file to read": {ro, unix.MAP_PRIVATE | unix.MAP_POPULATE, true},
		"shared file":          {rw, unix.MAP_SHARED | unix.MAP_POPULATE, true},
		"locked":               {rw, anon | unix.MAP_LOCKED, false},
		"locked file":          {rw, unix.MAP_SHARED | unix.MAP_LOCKED, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			fd := -1
			if c.file {
				fd = kit.File(t, 8)
			}
			a.Map(t, 0, 8, c.prot, c.flags, fd, 0)
			assert.Equal(t, 8, resident(t, a, 0, 8))
			// Rss leaves out the page of zeros that anonymous memory has when it was only read.
			if name != "anonymous read-only" {
				assert.Equal(t, 8*kit.PageSize/1024, kilobytes(t, a.Smaps(t, kit.Me)[0]["Rss"]))
			}
		})
	}
}

// Where there is nothing to populate, mmap succeeds all the same.
func TestPopulateReportsNoErrors(t *testing.T) {
	for name, flags := range map[string]int{"populate": unix.MAP_POPULATE, "locked": unix.MAP_LOCKED} {
		t.Run(name+" beyond the end", func(t *testing.T) {
			kit.EachDir(t, func(t *testing.T, d kit.Dir) {
				a := kit.NewArena(t, 4)
				a.Map(t, 0, 4, rw, unix.MAP_SHARED|flags, d.File(t, 2), 0)
				kit.Say(t, "%v", a.Bytes(kit.Me, 0, 4))
				assert.Equal(t, []string{"41", "42", busy, busy}, a.Bytes(kit.Me, 0, 4))
			})
		})
		t.Run(name+" without access", func(t *testing.T) {
			a := kit.NewArena(t, 2)
			a.Anon(t, 0, 2, none, flags)
			kit.Say(t, "%v", a.Bytes(kit.Me, 0, 2))
			assert.Equal(t, []string{"SIGSEGV/ACCERR", "SIGSEGV/ACCERR"}, a.Bytes(kit.Me, 0, 2))
		})
	}
}

func TestLargePopulatedMapping(t *testing.T) {
	const pages = 3 * kit.HugeSize / 4096
	for name, flags := range map[string]int{"private": anon, "shared": shared} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, pages)
			a.Map(t, 0, pages, rw, flags|unix.MAP_POPULATE, -1, 0)
			assert.Equal(t, pages, resident(t, a, 0, pages))
			memory := a.Memory(0, pages)
			for i := 0; i < len(memory); i += kit.PageSize {
				require.Zero(t, memory[i])
			}
			a.Fill(t, 0, pages, 1)
			assert.Equal(t, byte(255&pages), memory[len(memory)-kit.PageSize])
		})
	}
}

// Populated over a mapping that is in use: nothing old is left.
func TestPopulatedOverAnother(t *testing.T) {
	const pages = 600
	a := kit.NewArena(t, pages)
	a.Anon(t, 0, pages, rw, 0)
	a.Fill(t, 0, pages, 1)
	a.Map(t, 0, pages, rw, shared|unix.MAP_POPULATE, -1, 0)
	for i, b := range a.Bytes(kit.Me, 0, pages) {
		require.Equal(t, "00", b, "page %d", i)
	}
}

func TestLockedMappingIsShownAsLocked(t *testing.T) {
	for name, c := range map[string]struct {
		flags int
		file  bool
	}{
		"anonymous": {anon, false}, "shared memory": {shared, false}, "private file": {unix.MAP_PRIVATE, true}, "shared file": {unix.MAP_SHARED, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			fd := -1
			if c.file {
				fd = kit.File(t, 4)
			}
			a.Map(t, 0, 4, rw, c.flags|unix.MAP_LOCKED, fd, 0)
			entry := a.Smaps(t, kit.Me)[0]
			kit.Say(t, "Size %s", entry["Size"])
			assert.Contains(t, entry["VmFlags"]+" ", "lo ")
			assert.Equal(t, entry["Size"], entry["Locked"])
			require.Zero(t, kit.Me.Munlock(a.Base, kit.Len(4)))
			assert.NotContains(t, a.Smaps(t, kit.Me)[0]["VmFlags"]+" ", "lo ")
		})
	}
}

// What a call maps is added to the address space, and what it replaces is taken off.
func TestAddressSpaceIsCounted(t *testing.T) {
	for name, c := range map[string]struct{ prot, flags int }{
		"anonymous": {rw, anon}, "no access": {none, anon}, "noreserve": {rw, anon | unix.MAP_NORESERVE}, "shared": {rw, shared},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 16)
			child := kit.Fork(t)
			before := virtualPages(t, child)
			var seen []int
			for _, at := range []int{0, 0, 4, 2, 8} {
				require.True(t, child.Mmap(a.Page(at), kit.Len(8), c.prot, c.flags|fixed, -1, 0).OK())
				seen = append(seen, virtualPages(t, child)-before)
			}
			kit.Say(t, "%v", seen)
			assert.Equal(t, []int{8, 8, 12, 12, 16}, seen)
		})
	}
}
