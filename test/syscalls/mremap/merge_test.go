// A mapping that mremap grew or moved becomes one with its neighbours where it continues them, and only
// there: same permissions, and for files, and moved pages, the right offset.
package mremap

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// A file's page 3 moves next to the others of its file.
func TestMovedFilePagesMergeAtTheirOffset(t *testing.T) {
	for name, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				name          string
				offset, lower int // of the moved page and of the two at pages 4 and 5; upper is at 7
				upper         int
				want          []string
			}{
				{"both", 3, 1, 4, []string{"p4-p8 rw 1 file"}},
				{"left", 3, 1, 5, []string{"p4-p7 rw 1 file", "p7-p8 rw 5 file"}},
				{"right", 3, 0, 4, []string{"p4-p6 rw 0 file", "p6-p8 rw 3 file"}},
				{"neither", 3, 0, 5, []string{"p4-p6 rw 0 file", "p6-p7 rw 3 file", "p7-p8 rw 5 file"}},
				{"left-one-too-far", 3, 2, 5, []string{"p4-p6 rw 2 file", "p6-p7 rw 3 file", "p7-p8 rw 5 file"}},
				{"right-same-offset", 3, 0, 3, []string{"p4-p6 rw 0 file", "p6-p7 rw 3 file", "p7-p8 rw 3 file"}},
			} {
				t.Run(c.name, func(t *testing.T) {
					a := kit.NewArena(t, 16)
					fd := file(t, 8)
					a.Map(t, 12, 1, kit.RW, flags, fd, c.offset)
					a.Map(t, 4, 2, kit.RW, flags, fd, c.lower)
					a.Map(t, 7, 1, kit.RW, flags, fd, c.upper)
					r := after(t, a, 8, 12, 1, 1, fixed, 6)
					assert.True(t, r.OK())
					assert.Equal(t, c.want, withoutSharing(strict(t, a)))
					assert.Equal(t, offsets(c.lower, c.lower+1, c.offset, c.upper), contents(kit.Me, a.Page(4), 4))
				})
			}
		})
	}
}

// withoutSharing takes the last letter of permissions and the execute permission out of lines.
func withoutSharing(lines []string) []string {
	for i, line := range lines {
		for k := range line {
			if line[k] == ' ' {
				lines[i] = line[:k+3] + line[k+5:]
				break
			}
		}
	}
	return lines
}

// offsets are the contents of a file's pages.
func offsets(pages ...int) []string {
	var all []string
	for _, page := range pages {
		all = append(all, ofFile(page-1))
	}
	return all
}

// Growing in place up to a neighbour that continues the mapping makes one of them.
func TestGrownMappingMergesWithItsContinuation(t *testing.T) {
	for _, c := range []struct {
		name string
		fd   bool
		next int // offset of what follows
		want int // lines
	}{
		{"anon", false, 0, 1},
		{"file", true, 4, 1},
		{"file-with-a-gap", true, 5, 2},
		{"file-with-an-overlap", true, 3, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 12)
			fd, flags := -1, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS
			if c.fd {
				fd, flags = file(t, 8), unix.MAP_PRIVATE
			}
			a.Map(t, 2, 2, kit.RW, flags, fd, 0)
			a.Map(t, 6, 2, kit.RW, flags, fd, c.next)
			assert.True(t, after(t, a, 10, 2, 2, 4, 0, 0).OK())
			assert.Len(t, strict(t, a), c.want)
		})
	}
}

func TestGrownMappingDoesNotMergeWithOtherPermissions(t *testing.T) {
	a := kit.NewArena(t, 12)
	a.Anon(t, 2, 2, kit.RW, 0)
	a.Anon(t, 6, 2, unix.PROT_READ, 0)
	assert.True(t, after(t, a, 10, 2, 2, 4, 0, 0).OK())
	assert.Equal(t, []string{"p2-p6 rw-p 0", "p6-p8 r--p 0"}, strict(t, a))
}

// Pages nobody has written to have no place of their own yet, and merge wherever they go.
func TestUntouchedAnonymousPagesMerge(t *testing.T) {
	a := kit.NewArena(t, 16)
	a.Anon(t, 12, 2, kit.RW, 0)
	a.Anon(t, 4, 2, kit.RW, 0)
	a.Anon(t, 8, 2, kit.RW, 0)
	assert.True(t, after(t, a, 10, 12, 2, 2, fixed, 6).OK())
	assert.Equal(t, []string{"p4-p10 rw-p 0"}, strict(t, a))
}

// A page that moved away and back is where it was.
func TestThereAndBack(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			a := kit.NewArena(t, 26)
			k.make(t, a)
			a.Fill(t, first, size, 0x10)
			before := strict(t, a)
			assert.True(t, kit.Me.Mremap(a.Page(5), P, P, fixed, a.Page(18)).OK())
			assert.Equal(t, "p5", result(a, kit.Me.Mremap(a.Page(18), P, P, fixed, a.Page(5))))
			assert.Equal(t, []string{"10", "11", "12", "13"}, contents(kit.Me, a.Page(first), size))
			kit.Say(t, "%q", strict(t, a))
			if k.name != "shm" { // shm(2) counts its mappings, and joins none
				assert.Equal(t, before, strict(t, a))
			}
		})
	}
}

// Protections that follow must reach all pages of a merged mapping, and no other.
func TestMergedMappingIsProtectedAsOne(t *testing.T) {
	a := kit.NewArena(t, 16)
	fd := file(t, 8)
	a.Map(t, 12, 2, kit.RW, unix.MAP_SHARED, fd, 2)
	a.Map(t, 4, 2, kit.RW, unix.MAP_SHARED, fd, 0)
	assert.True(t, kit.Me.Mremap(a.Page(12), kit.Len(2), kit.Len(2), fixed, a.Page(6)).OK())
	assert.Zero(t, kit.Me.Mprotect(a.Page(5), kit.Len(2), unix.PROT_NONE))
	kit.Say(t, "%q", strict(t, a))
	assert.Equal(t, []string{"41", "SIGSEGV/ACCERR", "SIGSEGV/ACCERR", "44"}, contents(kit.Me, a.Page(4), 4))
}
