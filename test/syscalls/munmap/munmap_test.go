// Claims what munmap(2) removes: every page that the range touches, and nothing else.
package munmap

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	anon   = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	shared = unix.MAP_SHARED | unix.MAP_ANONYMOUS
	none   = unix.PROT_NONE
	ro     = unix.PROT_READ
	rw     = kit.RW
	gone   = "SIGSEGV/MAPERR"
)

func TestArgumentsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		addr, length uintptr // addr is relative to the arena if it is small
	}{
		"address not aligned":              {1, 0x1000},
		"length 0":                         {0, 0},
		"length that overflows":            {0, ^uintptr(0)},
		"length that wraps around":         {0, ^uintptr(0) - 0x1fff},
		"address beyond the address space": {1 << 62, 0x1000},
		"last address":                     {^uintptr(0xfff), 0x1000},
		"length beyond the address space":  {0, 1 << 62},
		"a page of length too much":        {0, ^uintptr(0xfff)},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 0, 2, rw, 0)
			addr := c.addr
			if addr < 1<<20 {
				addr += a.Base
			}
			e := kit.Me.Munmap(addr, c.length)
			kit.Say(t, "%s", kit.ErrnoName(e))
			assert.Equal(t, unix.EINVAL, e)
			assert.Equal(t, []string{"p0-p2 rw-p 0"}, a.Layout(t, kit.Me))
		})
	}
}

// A length is rounded up to pages.
func TestLengthIsRoundedUp(t *testing.T) {
	for name, c := range map[string]struct {
		length uintptr
		left   []string
	}{
		"1":          {1, []string{"p1-p4 rw-p 0"}},
		"page":       {kit.Len(1), []string{"p1-p4 rw-p 0"}},
		"page and 1": {kit.Len(1) + 1, []string{"p2-p4 rw-p 0"}},
		"all but 1":  {kit.Len(4) - 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 0, 4, rw, 0)
			require.Zero(t, kit.Me.Munmap(a.Base, c.length))
			kit.Say(t, "%v", a.Layout(t, kit.Me))
			assert.Equal(t, c.left, a.Layout(t, kit.Me))
		})
	}
}

// old   |---------A---------|
// gone      |---------|
func TestPartOfAMapping(t *testing.T) {
	for name, c := range map[string]struct {
		at, pages int
		layout    []string
		bytes     []string
	}{
		"all":              {1, 4, nil, []string{gone, gone, gone, gone}},
		"the head":         {1, 1, []string{"p2-p5 rw-p 0"}, []string{gone, "02", "03", "04"}},
		"the tail":         {4, 1, []string{"p1-p4 rw-p 0"}, []string{"01", "02", "03", gone}},
		"the middle":       {2, 2, []string{"p1-p2 rw-p 0", "p4-p5 rw-p 0"}, []string{"01", gone, gone, "04"}},
		"from below":       {0, 3, []string{"p3-p5 rw-p 0"}, []string{gone, gone, "03", "04"}},
		"to above":         {4, 3, []string{"p1-p4 rw-p 0"}, []string{"01", "02", "03", gone}},
		"more on each end": {0, 8, nil, []string{gone, gone, gone, gone}},
		"just below":       {0, 1, []string{"p1-p5 rw-p 0"}, []string{"01", "02", "03", "04"}},
		"just above":       {5, 1, []string{"p1-p5 rw-p 0"}, []string{"01", "02", "03", "04"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Anon(t, 1, 4, rw, 0)
			a.Fill(t, 1, 4, 1)
			require.Zero(t, kit.Me.Munmap(a.Page(c.at), kit.Len(c.pages)))
			kit.Say(t, "%v %v", a.Layout(t, kit.Me), a.Bytes(kit.Me, 1, 4))
			assert.Equal(t, c.layout, a.Layout(t, kit.Me))
			assert.Equal(t, c.bytes, a.Bytes(kit.Me, 1, 4))
		})
	}
}

func TestHolesAreNoErrors(t *testing.T) {
	a := kit.NewArena(t, 16)
	assert.Equal(t, unix.Errno(0), kit.Me.Munmap(a.Base, kit.Len(16)), "nothing is mapped")
	for _, i := range []int{1, 4, 5, 9, 15} {
		a.Anon(t, i, 1, rw, 0)
	}
	assert.Equal(t, unix.Errno(0), kit.Me.Munmap(a.Base, kit.Len(16)))
	assert.Empty(t, a.Layout(t, kit.Me))
	assert.Equal(t, unix.Errno(0), kit.Me.Munmap(a.Base, kit.Len(16)), "again")
}

// old   |-A-|  |-B-|-C-|   |---D---|
// gone    |----------------------|
func TestSeveralMappingsAtOnce(t *testing.T) {
	a := kit.NewArena(t, 16)
	a.Anon(t, 0, 2, rw, 0)
	a.Map(t, 4, 2, ro, unix.MAP_SHARED, kit.File(t, 2), 0)
	a.Map(t, 6, 2, rw, shared, -1, 0)
	a.Map(t, 10, 4, ro, unix.MAP_PRIVATE, kit.Memfd(t, 8, 0), 1)
	a.Fill(t, 0, 2, 1)
	require.Zero(t, kit.Me.Munmap(a.Page(1), kit.Len(11)))
	kit.Say(t, "%v", a.Layout(t, kit.Me))
	lines := a.Maps(t, kit.Me)
	require.Len(t, lines, 2)
	assert.Equal(t, []uintptr{a.Page(0), a.Page(1), a.Page(12), a.Page(14)}, []uintptr{lines[0].Start, lines[0].End, lines[1].Start, lines[1].End})
	assert.Equal(t, uint64(kit.Len(3)), lines[1].Offset)
	assert.Equal(t, []string{"01", gone}, a.Bytes(kit.Me, 0, 2))
	assert.Equal(t, []string{gone, "44", "45"}, a.Bytes(kit.Me, 11, 3))
}

// Both parts of a split file mapping show what they showed.
func TestSplitKeepsOffsets(t *testing.T) {
	for name, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.Run(name, func(t *testing.T) {
			kit.EachDir(t, func(t *testing.T, d kit.Dir) {
				a := kit.NewArena(t, 6)
				a.Map(t, 0, 6, rw, flags, d.File(t, 8), 2)
				require.Zero(t, kit.Me.Munmap(a.Page(2), kit.Len(2)))
				lines := a.Maps(t, kit.Me)
				require.Len(t, lines, 2)
				assert.Equal(t, uint64(kit.Len(2)), lines[0].Offset)
				assert.Equal(t, uint64(kit.Len(6)), lines[1].Offset)
				kit.Say(t, "%v", a.Bytes(kit.Me, 0, 6))
				assert.Equal(t, []string{"43", "44", gone, gone, "47", "48"}, a.Bytes(kit.Me, 0, 6))
			})
		})
	}
}

// Every other page of a large mapping.
func TestManySplits(t *testing.T) {
	const pages = 256
	a := kit.NewArena(t, pages)
	a.Anon(t, 0, pages, rw, 0)
	a.Fill(t, 0, pages, 0)
	for i := 1; i < pages; i += 2 {
		require.Zero(t, kit.Me.Munmap(a.Page(i), kit.Len(1)))
	}
	assert.Len(t, a.Maps(t, kit.Me), pages/2)
	for i := range pages {
		assert.Equal(t, i%2 == 1, kit.Me.Load(a.Page(i)).Faulted(), "page %d", i)
	}
	// One call for all that is left.
	require.Zero(t, kit.Me.Munmap(a.Base, kit.Len(pages)))
	assert.Empty(t, a.Maps(t, kit.Me))
}

// What is mapped there next is new.
func TestUnmappedMemoryIsForgotten(t *testing.T) {
	for name, flags := range map[string]int{"private": anon, "shared": shared, "populated": anon | unix.MAP_POPULATE} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 3)
			a.Map(t, 0, 3, rw, flags, -1, 0)
			a.Fill(t, 0, 3, 1)
			require.Zero(t, kit.Me.Munmap(a.Page(1), kit.Len(1)))
			a.Map(t, 1, 1, rw, flags, -1, 0)
			kit.Say(t, "%v", a.Bytes(kit.Me, 0, 3))
			assert.Equal(t, []string{"01", "00", "03"}, a.Bytes(kit.Me, 0, 3))
		})
	}
}

// A shared mapping's contents are the file's.
func TestUnmappedSharedPagesStayInTheFile(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 4)
		fd := d.File(t, 4)
		a.Map(t, 0, 4, rw, unix.MAP_SHARED, fd, 0)
		a.Fill(t, 0, 4, 1)
		require.Zero(t, kit.Me.Munmap(a.Page(1), kit.Len(2)))
		a.Map(t, 1, 2, ro, unix.MAP_PRIVATE, fd, 1)
		assert.Equal(t, []string{"01", "02", "03", "04"}, a.Bytes(kit.Me, 0, 4))
		var b [1]byte
		_, err := unix.Pread(fd, b[:], int64(kit.Len(2)))
		require.NoError(t, err)
		assert.Equal(t, byte(3), b[0])
	})
}

func TestUnmappedPrivateCopiesAreGone(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, rw, unix.MAP_PRIVATE, fd, 0)
		a.Fill(t, 0, 2, 1)
		require.Zero(t, kit.Me.Munmap(a.Page(1), kit.Len(1)))
		a.Map(t, 1, 1, rw, unix.MAP_PRIVATE, fd, 1)
		kit.Say(t, "%v", a.Bytes(kit.Me, 0, 2))
		assert.Equal(t, []string{"01", "42"}, a.Bytes(kit.Me, 0, 2))
	})
}

// An access from any thread, or from the kernel, finds nothing.
func TestUnmappedForEveryThread(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Anon(t, 0, 1, rw, 0)
	one, two := kit.NewThread(t), kit.NewThread(t)
	one.Store(a.Base, 1)
	two.Store(a.Base, 2)
	require.Zero(t, one.Munmap(a.Base, kit.Len(1)))
	assert.Equal(t, "SIGSEGV/MAPERR at p0", a.Describe(two.Load(a.Base)))
	assert.Equal(t, "SIGSEGV/MAPERR at p0", a.Describe(two.Store(a.Base, 1)))
	assert.Equal(t, "SIGSEGV/MAPERR at p0", a.Describe(one.Exec(a.Base)))
	_, w := kit.Pipe(t)
	assert.Equal(t, unix.EFAULT, two.Write(w, a.Base, 1).Errno)
}

func TestUnmappedInOneProcessOnly(t *testing.T) {
	for name, flags := range map[string]int{"private": anon, "shared": shared} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			a.Map(t, 0, 2, rw, flags, -1, 0)
			a.Fill(t, 0, 2, 1)
			child := kit.Fork(t)
			require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(1)))
			require.Zero(t, child.Munmap(a.Page(1), kit.Len(1)))
			kit.Say(t, "parent %v child %v", a.Bytes(kit.Me, 0, 2), a.Bytes(child, 0, 2))
			assert.Equal(t, []string{gone, "02"}, a.Bytes(kit.Me, 0, 2))
			assert.Equal(t, []string{"01", gone}, a.Bytes(child, 0, 2))
		})
	}
}
