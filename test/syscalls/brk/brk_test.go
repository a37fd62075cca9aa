// Claims how brk(2) moves the end of the heap: where to, what is mapped then, and what is in it. All of it happens
// in forked children and programs of their own, so that the test's own process has the heap it began with.
package brk

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	anon  = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	fixed = unix.MAP_FIXED
	none  = unix.PROT_NONE
	ro    = unix.PROT_READ
	rw    = kit.RW
	gone  = "SIGSEGV/MAPERR"
)

// A heap is that of a child which nobody else uses. Its pages are shown as those of an arena: the break is at
// page 0 at first.
type heap struct {
	*kit.Actor
	pages *kit.Arena
}

func newHeap(t testing.TB) *heap {
	t.Helper()
	child := kit.Fork(t)
	start := child.Brk(0)
	if up := (start + kit.Len(1) - 1) &^ (kit.Len(1) - 1); up != start {
		require.Equal(t, up, child.Brk(up))
		start = up
	}
	return &heap{child, &kit.Arena{Base: start, Pages: 600}}
}

// to moves the break to a page and so many bytes, and returns where it is then, in the same terms.
func (h *heap) to(page int, bytes uintptr) string {
	return h.show(h.Brk(h.pages.Page(page) + bytes))
}

func (h *heap) show(addr uintptr) string {
	if addr < h.pages.Base {
		return "below the heap"
	}
	return h.pages.Where(addr)
}

func (h *heap) layout(t testing.TB) []string { return h.pages.Layout(t, h.Actor) }

func TestBreakMoves(t *testing.T) {
	h := newHeap(t)
	for _, c := range []struct {
		page  int
		bytes uintptr
		at    string
		want  []string
	}{
		{0, 0, "p0", nil},
		{1, 0, "p1", []string{"p0-p1 rw-p 0 [heap]"}},
		{4, 0, "p4", []string{"p0-p4 rw-p 0 [heap]"}},
		{4, 0, "p4", []string{"p0-p4 rw-p 0 [heap]"}},
		{2, 0, "p2", []string{"p0-p2 rw-p 0 [heap]"}},
		{3, 0, "p3", []string{"p0-p3 rw-p 0 [heap]"}},
		{0, 0, "p0", nil},
	} {
		at := h.to(c.page, c.bytes)
		kit.Say(t, "%s %v", at, h.layout(t))
		assert.Equal(t, c.at, at)
		assert.Equal(t, c.want, h.layout(t))
		assert.Equal(t, c.at, h.show(h.Brk(0)), "asking does not move it")
	}
}

// The break may be anywhere; what is mapped ends with its page.
func TestBreakInsideAPage(t *testing.T) {
	h := newHeap(t)
	for _, c := range []struct {
		page  int
		bytes uintptr
		at    string
		want  []string
	}{
		{0, 1, "p0+0x1", []string{"p0-p1 rw-p 0 [heap]"}},
		{0, 100, "p0+0x64", []string{"p0-p1 rw-p 0 [heap]"}},
		{1, 0, "p1", []string{"p0-p1 rw-p 0 [heap]"}},
		{1, 1, "p1+0x1", []string{"p0-p2 rw-p 0 [heap]"}},
		{3, 0xfff, "p3+0xfff", []string{"p0-p4 rw-p 0 [heap]"}},
		{2, 1, "p2+0x1", []string{"p0-p3 rw-p 0 [heap]"}},
		{0, 1, "p0+0x1", []string{"p0-p1 rw-p 0 [heap]"}},
		{0, 0, "p0", nil},
	} {
		at := h.to(c.page, c.bytes)
		kit.Say(t, "%s %v", at, h.layout(t))
		assert.Equal(t, c.at, at)
		assert.Equal(t, c.want, h.layout(t))
	}
}

func TestNewHeapIsZero(t *testing.T) {
	h := newHeap(t)
	require.Equal(t, "p8", h.to(8, 0))
	for _, b := range h.pages.Bytes(h.Actor, 0, 8) {
		require.Equal(t, "00", b)
	}
	assert.Equal(t, []string{gone}, h.pages.Bytes(h.Actor, 8, 1))
}

// fill stores i+1 in page i of the heap.
func (h *heap) fill(t testing.TB, i, n int) {
	t.Helper()
	for k := i; k < i+n; k++ {
		require.False(t, h.Store(h.pages.Page(k), byte(k+1)).Faulted())
	}
}

func TestShrunkPagesAreGoneAndComeBackZero(t *testing.T) {
	h := newHeap(t)
	h.to(4, 0)
	h.fill(t, 0, 4)
	h.to(2, 0)
	assert.Equal(t, []string{"01", "02", gone, gone}, h.pages.Bytes(h.Actor, 0, 4))
	h.to(4, 0)
	kit.Say(t, "%v", h.pages.Bytes(h.Actor, 0, 4))
	assert.Equal(t, []string{"01", "02", "00", "00"}, h.pages.Bytes(h.Actor, 0, 4))
}

// A page that the break stays in keeps all of its contents, also above the break.
func TestPageOfTheBreakKeepsItsContents(t *testing.T) {
	h := newHeap(t)
	h.to(1, 0)
	require.False(t, h.Store(h.pages.Base+200, 7).Faulted())
	h.to(0, 100)
	assert.False(t, h.Load(h.pages.Base+200).Faulted(), "the page is mapped to its end")
	h.to(1, 0)
	kit.Say(t, "%v", h.Load(h.pages.Base+200))
	assert.Equal(t, uint64(7), h.Load(h.pages.Base+200).Value)
	h.to(0, 0)
	h.to(1, 0)
	assert.Equal(t, uint64(0), h.Load(h.pages.Base+200).Value)
}

func TestHeapIsWritableAndNotExecutable(t *testing.T) {
	h := newHeap(t)
	h.to(1, 0)
	assert.False(t, h.Store(h.pages.Base, kit.ReturnCode[0]).Faulted())
	assert.Equal(t, "SIGSEGV/ACCERR at p0", h.pages.Describe(h.Exec(h.pages.Base)))
}

// A refused call returns the break as it is, and changes nothing.
func TestImpossibleBreakIsRefused(t *testing.T) {
	for name, addr := range map[string]func(h *heap) uintptr{
		"below the heap":           func(h *heap) uintptr { return h.pages.Base - kit.Len(600) },
		"1":                        func(*heap) uintptr { return 1 },
		"beyond the address space": func(*heap) uintptr { return 1 << 62 },
		"last address":             func(*heap) uintptr { return ^uintptr(0) },
		"last page":                func(*heap) uintptr { return ^uintptr(0xfff) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeap(t)
			h.to(2, 5)
			h.fill(t, 0, 2)
			at := h.show(h.Brk(addr(h)))
			kit.Say(t, "%s", at)
			assert.Equal(t, "p2+0x5", at)
			assert.Equal(t, []string{"p0-p3 rw-p 0 [heap]"}, h.layout(t))
			assert.Equal(t, []string{"01", "02", "00"}, h.pages.Bytes(h.Actor, 0, 3))
		})
	}
}

// The heap does not grow into other mappings, whatever they are.
//
//	|-heap-|      |-other-|
func TestMappingInTheWay(t *testing.T) {
	const at = 300 // page of the other mapping
	for name, c := range map[string]struct {
		prot, flags int
		to          int
		grows       bool
	}{
		"far below it":              {rw, anon, 200, true},
		"two pages below it":        {rw, anon, at - 2, true},
		"one page below it":         {rw, anon, at - 1, true},
		"next to it":                {rw, anon, at, false},
		"into it":                   {rw, anon, at + 1, false},
		"beyond it":                 {rw, anon, at + 50, false},
		"into no access":            {none, anon, at + 1, false},
		"beyond no access":          {none, anon, at + 50, false},
		"into a growing one":        {rw, anon | unix.MAP_GROWSDOWN, at + 1, false},
		"the gap of a growing one":  {rw, anon | unix.MAP_GROWSDOWN, at - 200, false},
		"below a growing one's gap": {rw, anon | unix.MAP_GROWSDOWN, at - 257, true},
		"shared memory":             {rw, unix.MAP_SHARED | unix.MAP_ANONYMOUS, at + 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeap(t)
			h.to(2, 0)
			h.fill(t, 0, 2)
			require.True(t, h.Mmap(h.pages.Page(at), kit.Len(1), c.prot, c.flags|fixed, -1, 0).OK())
			got := h.to(c.to, 0)
			kit.Say(t, "%s %v", got, h.layout(t))
			want := "p2"
			if c.grows {
				want = fmt.Sprintf("p%d", c.to)
			}
			assert.Equal(t, want, got)
			assert.Equal(t, []string{"01", "02"}, h.pages.Bytes(h.Actor, 0, 2))
			assert.Len(t, h.pages.Maps(t, h.Actor), 2)
		})
	}
}

// When what was in the way is gone, the heap grows.
func TestMappingNoLongerInTheWay(t *testing.T) {
	h := newHeap(t)
	h.to(1, 0)
	require.True(t, h.Mmap(h.pages.Page(3), kit.Len(1), none, anon|fixed, -1, 0).OK())
	assert.Equal(t, "p1", h.to(8, 0))
	require.Zero(t, h.Munmap(h.pages.Page(3), kit.Len(1)))
	assert.Equal(t, "p8", h.to(8, 0))
	assert.Equal(t, []string{"p0-p8 rw-p 0 [heap]"}, h.layout(t))
}

// A part of the heap that was replaced or protected stays so when the heap grows or shrinks above it.
func TestChangedPartOfTheHeap(t *testing.T) {
	h := newHeap(t)
	h.to(6, 0)
	h.fill(t, 0, 6)
	require.Zero(t, h.Mprotect(h.pages.Page(1), kit.Len(1), ro))
	require.True(t, h.Mmap(h.pages.Page(3), kit.Len(1), rw, anon|fixed, -1, 0).OK())
	assert.Equal(t, "p8", h.to(8, 0))
	kit.Say(t, "%v", h.pages.Bytes(h.Actor, 0, 8))
	assert.Equal(t, []string{"01", "02", "03", "00", "05", "06", "00", "00"}, h.pages.Bytes(h.Actor, 0, 8))
	assert.True(t, h.Store(h.pages.Page(1), 1).Faulted())
	assert.Equal(t, "p5", h.to(5, 0))
	assert.Equal(t, []string{"01", "02", "03", "00", "05", gone}, h.pages.Bytes(h.Actor, 0, 6))
	// Shrinking takes everything above with it, also what is heap no more.
	assert.Equal(t, "p1", h.to(1, 0))
	kit.Say(t, "%v", h.layout(t))
	assert.Equal(t, []string{"p0-p1 rw-p 0 [heap]"}, h.layout(t))
}

// A protected end of the heap does not hold up its growth.
func TestGrowthBehindAProtectedPart(t *testing.T) {
	h := newHeap(t)
	h.to(2, 0)
	h.fill(t, 0, 2)
	require.Zero(t, h.Mprotect(h.pages.Base, kit.Len(2), ro))
	assert.Equal(t, "p4", h.to(4, 0))
	kit.Say(t, "%v", h.layout(t))
	assert.Equal(t, []string{"p0-p2 r--p 0 [heap]", "p2-p4 rw-p 0 [heap]"}, h.layout(t))
	assert.False(t, h.Store(h.pages.Page(3), 1).Faulted())
}

// The heap is memory like other memory: it can be locked, advised and moved away.
func TestHeapIsOrdinaryMemory(t *testing.T) {
	h := newHeap(t)
	a := kit.NewArena(t, 4)
	h.to(4, 0)
	h.fill(t, 0, 4)
	require.Zero(t, h.Madvise(h.pages.Page(1), kit.Len(1), unix.MADV_DONTNEED))
	assert.Equal(t, []string{"01", "00", "03", "04"}, h.pages.Bytes(h.Actor, 0, 4))
	r := h.Mremap(h.pages.Page(2), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Base)
	require.True(t, r.OK(), "%v", r)
	assert.Equal(t, []string{"03", "04"}, a.Bytes(h.Actor, 0, 2))
	assert.Equal(t, []string{"01", "00", gone, gone}, h.pages.Bytes(h.Actor, 0, 4))
	assert.Equal(t, "p4", h.show(h.Brk(0)), "the break stays where it is")
}
