// Several mappings can move in one call (Linux 6.17): all of them, with the holes between them, if none
// changes its size. Where a kernel cannot do it, it says EFAULT, and these tests are skipped.
package mremap

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// needsSeveral skips a test where the kernel moves one mapping only.
func needsSeveral(t *testing.T) *kit.Arena {
	t.Helper()
	a := kit.NewArena(t, 64)
	a.Anon(t, 0, 1, unix.PROT_READ, 0)
	a.Anon(t, 1, 1, kit.RW, 0)
	r := kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(2), fixed, a.Page(4))
	require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(8)))
	if r.Errno == unix.EFAULT {
		t.Skip("mremap of several mappings at once needs Linux 6.17")
	}
	return a
}

func TestSeveralMappingsMoveTogether(t *testing.T) {
	a := needsSeveral(t)
	mixed(t, a)
	after(t, a, 32, 4, 12, 12, fixed, 20)
	assert.Equal(t, []string{"p20-p22 rw-p 0", "p22-p24 r--p 0", "p26-p28 rw-s 3 file", "p28-p30 rw-p 1 file"}, layout(t, a))
	assert.Equal(t, append(append([]string{"20", "21", "00", "00"}, repeat("SIGSEGV/MAPERR", 2)...), "44", "45", "2a", "2b"),
		contents(kit.Me, a.Page(20), 10))
}

// mixed is four mappings in pages [4,16), with holes.
func mixed(t *testing.T, a *kit.Arena) {
	t.Helper()
	fd := file(t, 8)
	a.Anon(t, 4, 2, kit.RW, 0)
	a.Anon(t, 6, 2, unix.PROT_READ, 0)
	a.Map(t, 10, 2, kit.RW, unix.MAP_SHARED, fd, 3)
	a.Map(t, 12, 2, kit.RW, unix.MAP_PRIVATE, fd, 1)
	a.Fill(t, 4, 2, 0x20)
	a.Fill(t, 12, 2, 0x2a)
}

func TestSeveralMappingsInParts(t *testing.T) {
	for _, c := range []struct {
		name      string
		from, len int
	}{
		{"from-the-middle-of-the-first", 5, 8},
		{"to-the-middle-of-the-last", 4, 9},
		{"both", 5, 8},
		{"ends-in-a-hole", 4, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := needsSeveral(t)
			mixed(t, a)
			assert.Equal(t, "p20", result(a, after(t, a, 40, c.from, c.len, c.len, fixed, 20)))
		})
	}
}

// What cannot be done for several is refused, and nothing changes.
func TestSeveralMappingsRefused(t *testing.T) {
	for _, c := range []struct {
		name           string
		from, old, new int
		flags          int
		want           string
	}{
		{"grow", 4, 12, 13, fixed, "EFAULT"},
		{"starts-in-a-hole", 8, 6, 6, fixed, "EFAULT"},
		{"nothing-there", 0, 4, 4, fixed, "EFAULT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := needsSeveral(t)
			mixed(t, a)
			before := layout(t, a)
			assert.Equal(t, c.want, result(a, after(t, a, 40, c.from, c.old, c.new, c.flags, 20)))
			assert.Equal(t, before, layout(t, a))
		})
	}
}

// Growing over several without a destination is refused by every kernel, and so is a move of a hole.
func TestGrowingOverSeveralMappingsIsRefused(t *testing.T) {
	for name, flags := range map[string]int{"in-place": 0, "may-move": may} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 32)
			mixed(t, a)
			before := layout(t, a)
			assert.Equal(t, "EFAULT", result(a, after(t, a, 32, 4, 12, 13, flags, 0)))
			assert.Equal(t, before, layout(t, a))
		})
	}
}

// Shrinking in place does not ask what it cuts off.
func TestShrinkingCutsOffSeveralMappings(t *testing.T) {
	a := kit.NewArena(t, 32)
	mixed(t, a)
	assert.Equal(t, "p4", result(a, after(t, a, 16, 4, 9, 1, 0, 0)))
	assert.Equal(t, []string{"p4-p5 rw-p 0", "p13-p14 rw-p 2 file"}, layout(t, a))
}

// Neither does a move that shrinks, as long as what moves is one mapping.
func TestShrinkingMoveCutsOffSeveralMappings(t *testing.T) {
	a := kit.NewArena(t, 32)
	mixed(t, a)
	assert.Equal(t, "p20", result(a, after(t, a, 24, 4, 9, 1, fixed, 20)))
	assert.Equal(t, []string{"p13-p14 rw-p 2 file", "p20-p21 rw-p 0"}, layout(t, a))
}

// A destination may replace several mappings, and parts of them.
func TestDestinationReplacesSeveralMappings(t *testing.T) {
	a := kit.NewArena(t, 48)
	mixed(t, a)
	a.Anon(t, 32, 8, kit.RW, 0)
	a.Fill(t, 32, 8, 0x50)
	assert.Equal(t, "p5", result(a, after(t, a, 40, 32, 8, 8, fixed, 5)))
	kit.Say(t, "%q", layout(t, a))
	assert.Equal(t, []string{"20", "50", "51", "52", "53", "54", "55", "56", "57", "2b"}, contents(kit.Me, a.Page(4), 10))
}
