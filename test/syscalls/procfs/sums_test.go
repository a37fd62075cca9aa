// The sizes of status and statm: the sums of maps, and what changes them. All are of children, which make
// no mappings but those that they are asked for.
package procfs

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func sum(all []kit.Line) (bytes uintptr) {
	for _, l := range all {
		bytes += l.End - l.Start
	}
	return bytes
}

func TestSizeIsTheSumOfMaps(t *testing.T) {
	child := still(t)
	want := sum(counted(lines(t, child)))
	t.Run("status", func(t *testing.T) { assert.Equal(t, want, status(t, child, "VmSize")) })
	t.Run("statm", func(t *testing.T) { assert.Equal(t, want, kit.Len(statm(t, child)[0])) })
}

func TestPeakIsNotBelowSize(t *testing.T) {
	a := kit.NewArena(t, 64)
	child := kit.Fork(t)
	assert.GreaterOrEqual(t, status(t, child, "VmPeak"), status(t, child, "VmSize"))
	mapIn(t, a, child, 0, 64, kit.RW, private)
	high := status(t, child, "VmSize")
	require.Zero(t, child.Munmap(a.Page(0), kit.Len(64)))
	assert.GreaterOrEqual(t, status(t, child, "VmPeak"), high, "what was unmapped counts")
}

// many pages are enough to be seen in counts that lag behind: each processor keeps some to itself.
const (
	many = 4096
	lag  = many / 2
)

func TestPeakOfResidentSizeRemembers(t *testing.T) {
	a := kit.NewArena(t, many)
	child := kit.Fork(t)
	before := status(t, child, "VmRSS")
	mapIn(t, a, child, 0, many, kit.RW, private|unix.MAP_POPULATE)
	require.Zero(t, child.Munmap(a.Page(0), kit.Len(many)))
	assert.GreaterOrEqual(t, status(t, child, "VmHWM"), before+kit.Len(many-lag))
}

func TestResidentIsNotAboveSize(t *testing.T) {
	child := still(t)
	assert.LessOrEqual(t, status(t, child, "VmRSS"), status(t, child, "VmSize"))
	numbers := statm(t, child)
	assert.LessOrEqual(t, numbers[1], numbers[0])
	assert.LessOrEqual(t, numbers[2], numbers[1], "shared")
}

// The parts of the resident set, as status shows them, are all of it.
func TestPartsOfTheResidentSet(t *testing.T) {
	fields := kit.Statuses(t, still(t), "VmRSS", "RssAnon", "RssFile", "RssShmem")
	parts := 0
	for _, field := range fields[1:] {
		parts += kilobytes(t, field)
	}
	assert.Equal(t, kilobytes(t, fields[0]), parts)
}

// Each thing that a child may do, and by how many pages it changes what is counted. A field that is not
// named does not change.
func TestWhatCounts(t *testing.T) {
	for _, c := range []struct {
		name             string
		prepare, do      func(t *testing.T, a *kit.Arena, child *kit.Actor)
		size, data, stck int // pages
	}{
		{"private", nil, maps(kit.RW, private), 8, 8, 0},
		{"private-read-only", nil, maps(unix.PROT_READ, private), 8, 0, 0},
		{"private-none", nil, maps(unix.PROT_NONE, private), 8, 0, 0},
		{"noreserve", nil, maps(kit.RW, private|unix.MAP_NORESERVE), 8, 8, 0},
		{"shared", nil, maps(kit.RW, shared), 8, 0, 0},
		{"grows-down", nil, maps(kit.RW, private|unix.MAP_GROWSDOWN), 8, 0, 8},
		{"made-writable", maps(unix.PROT_READ, private), protects(kit.RW), 0, 8, 0},
		{"made-read-only", maps(kit.RW, private), protects(unix.PROT_READ), 0, -8, 0},
		{"made-inaccessible", maps(kit.RW, private), protects(unix.PROT_NONE), 0, -8, 0},
		{"unmapped", maps(kit.RW, private), func(t *testing.T, a *kit.Arena, child *kit.Actor) {
			require.Zero(t, child.Munmap(a.Page(2), kit.Len(3)))
		}, -3, -3, 0},
		{"replaced", maps(kit.RW, private), maps(kit.RW, private), 0, 0, 0},
		{"replaced-by-shared", maps(kit.RW, private), maps(kit.RW, shared), 0, -8, 0},
		{"grown", maps(kit.RW, private), func(t *testing.T, a *kit.Arena, child *kit.Actor) {
			require.True(t, child.Mremap(a.Page(0), kit.Len(8), kit.Len(12), 0, 0).OK())
		}, 4, 4, 0},
		{"moved", maps(kit.RW, private), func(t *testing.T, a *kit.Arena, child *kit.Actor) {
			require.True(t, child.Mremap(a.Page(0), kit.Len(8), kit.Len(8), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(20)).OK())
		}, 0, 0, 0},
		{"heap", nil, func(t *testing.T, _ *kit.Arena, child *kit.Actor) {
			child.Brk(child.Brk(0) + 8*P)
		}, 8, 8, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 32)
			child := kit.Fork(t)
			if c.prepare != nil {
				c.prepare(t, a, child)
			}
			read := func() (sizes [5]int) {
				for i, field := range []string{"VmSize", "VmData", "VmStk"} {
					if value := kit.Status(t, child, field); value != "absent" {
						sizes[i] = int(status(t, child, field)) / kit.PageSize
					}
				}
				numbers := statm(t, child)
				sizes[3], sizes[4] = numbers[0], numbers[5]
				return sizes
			}
			before := read()
			c.do(t, a, child)
			after := read()
			t.Run("VmSize", func(t *testing.T) { assert.Equal(t, c.size, after[0]-before[0]) })
			t.Run("VmData", func(t *testing.T) { assert.Equal(t, c.data, after[1]-before[1]) })
			t.Run("VmStk", func(t *testing.T) { assert.Equal(t, c.stck, after[2]-before[2]) })
			t.Run("statm-size", func(t *testing.T) { assert.Equal(t, c.size, after[3]-before[3]) })
			t.Run("statm-data", func(t *testing.T) { assert.Equal(t, c.data+c.stck, after[4]-before[4]) })
		})
	}
}

func maps(prot, flags int) func(*testing.T, *kit.Arena, *kit.Actor) {
	return func(t *testing.T, a *kit.Arena, child *kit.Actor) { mapIn(t, a, child, 0, 8, prot, flags) }
}

func protects(prot int) func(*testing.T, *kit.Arena, *kit.Actor) {
	return func(t *testing.T, a *kit.Arena, child *kit.Actor) {
		require.Zero(t, child.Mprotect(a.Page(0), kit.Len(8), prot))
	}
}

// Locked memory, of a child, whose count begins at nothing.
func TestLockedSize(t *testing.T) {
	a := kit.NewArena(t, 8)
	child := kit.Fork(t)
	assert.Equal(t, "0 kB", kit.Status(t, child, "VmLck"))
	mapIn(t, a, child, 0, 8, kit.RW, private)
	require.Zero(t, child.Mlock(a.Page(1), kit.Len(3)))
	assert.Equal(t, pages(3), kit.Status(t, child, "VmLck"))
	require.Zero(t, child.Munlock(a.Page(2), P))
	assert.Equal(t, pages(2), kit.Status(t, child, "VmLck"))
}

// Memory that is in use is resident, in all counts; what was unmapped is not any more.
func TestResidentSizeFollowsUse(t *testing.T) {
	a := kit.NewArena(t, many)
	child := kit.Fork(t)
	before, pagesBefore := status(t, child, "VmRSS"), statm(t, child)[1]
	mapIn(t, a, child, 0, many, kit.RW, private|unix.MAP_POPULATE)
	full, pagesFull := status(t, child, "VmRSS"), statm(t, child)[1]
	assert.GreaterOrEqual(t, full, before+kit.Len(many-lag))
	assert.GreaterOrEqual(t, pagesFull, pagesBefore+many-lag)
	require.Zero(t, child.Munmap(a.Page(0), kit.Len(many)))
	assert.LessOrEqual(t, status(t, child, "VmRSS"), full-kit.Len(lag))
	assert.LessOrEqual(t, statm(t, child)[1], pagesFull-lag)
}

// The fields that tell of memory, all of them.
func TestFieldsOfStatus(t *testing.T) {
	child := kit.Fork(t)
	for _, field := range []string{
		"VmPeak", "VmSize", "VmLck", "VmPin", "VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData", "VmStk", "VmExe", "VmLib",
		"VmPTE", "VmSwap", "HugetlbPages",
	} {
		t.Run(field, func(t *testing.T) { assert.Regexp(t, `^\d+ kB$`, kit.Status(t, child, field)) })
	}
}

func TestFieldsOfStatm(t *testing.T) {
	numbers := statm(t, still(t))
	t.Run("text", func(t *testing.T) { assert.NotZero(t, numbers[3]) })
	t.Run("library", func(t *testing.T) { assert.Zero(t, numbers[4], "unused since Linux 2.6") })
	t.Run("dirty", func(t *testing.T) { assert.Zero(t, numbers[6], "unused since Linux 2.6") })
}

// Threads have the sizes of their process.
func TestStatusOfAThread(t *testing.T) {
	child := still(t)
	data, err := os.ReadFile(child.Proc() + "/task/" + child.Proc()[len("/proc/"):] + "/status")
	require.NoError(t, err)
	assert.Contains(t, string(data), "VmSize:")
	assert.Contains(t, string(data), kit.Status(t, child, "VmSize"))
}
