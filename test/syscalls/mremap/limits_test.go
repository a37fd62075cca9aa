// RLIMIT_AS, RLIMIT_DATA and RLIMIT_MEMLOCK bound what mremap adds, and nothing else.
package mremap

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// kilobytes is a field of status in bytes.
func kilobytes(t *testing.T, actor *kit.Actor, field string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimSuffix(kit.Status(t, actor, field), " kB"), 10, 64)
	require.NoError(t, err)
	return n << 10
}

// A limitCase is a call on 8 pages at page 0, with some pages left to the limit.
type limitCase struct {
	name     string
	old, new int
	flags    int
	left     int
	want     string
}

var limitCases = []limitCase{
	{"grow-to-the-limit", 8, 12, 0, 4, "p0"},
	{"grow-beyond", 8, 13, 0, 4, "ENOMEM"},
	{"move-and-grow-to-the-limit", 8, 12, fixed, 4, "p32"},
	{"move-and-grow-beyond", 8, 13, fixed, 4, "ENOMEM"},
	{"move", 8, 8, fixed, 0, "p32"},
	{"move-part", 4, 4, fixed, 0, "p32"},
	{"move-and-shrink", 8, 4, fixed, 0, "p32"},
	{"shrink", 8, 4, 0, 0, "p0"},
	{"same-size", 8, 8, 0, 0, "p0"},
}

func TestAddressSpaceLimit(t *testing.T) {
	for _, c := range limitCases {
		t.Run(c.name, func(t *testing.T) {
			limited(t, c, unix.RLIMIT_AS, "VmSize", unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		})
	}
}

func TestDataLimit(t *testing.T) {
	for _, c := range limitCases {
		t.Run(c.name, func(t *testing.T) {
			limited(t, c, unix.RLIMIT_DATA, "VmData", unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		})
	}
}

// Shared memory is no data.
func TestDataLimitLeavesSharedMemoryAlone(t *testing.T) {
	limited(t, limitCase{"grow", 8, 13, 0, 4, "p0"}, unix.RLIMIT_DATA, "VmData", unix.MAP_SHARED|unix.MAP_ANONYMOUS)
}

// A limit that is exceeded already forbids growth only.
func TestExceededLimitAllowsMoves(t *testing.T) {
	for _, c := range []limitCase{
		{"move", 8, 8, fixed, -4, "p32"},
		{"shrink", 8, 2, 0, -4, "p0"},
		{"grow", 8, 9, 0, -4, "ENOMEM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			limited(t, c, unix.RLIMIT_AS, "VmSize", unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		})
	}
}

// limited makes the call in a child whose limit leaves so many pages more than it has.
func limited(t *testing.T, c limitCase, resource int, field string, flags int) {
	t.Helper()
	a := kit.NewArena(t, 64)
	child := kit.Fork(t)
	require.True(t, child.Mmap(a.Page(0), kit.Len(8), kit.RW, flags|unix.MAP_FIXED, -1, 0).OK())
	start := kilobytes(t, child, field)
	limit(t, child, resource, start+uint64(c.left*kit.PageSize))
	r := child.Mremap(a.Page(0), kit.Len(c.old), kit.Len(c.new), c.flags, a.Page(32))
	assert.Equal(t, c.want, result(a, r))
	counted := int64(kilobytes(t, child, field)-start) / int64(kit.PageSize)
	switch {
	case !r.OK():
		assert.Zero(t, counted, "a refused call counts nothing")
	case flags&unix.MAP_SHARED == 0:
		assert.EqualValues(t, c.new-c.old, counted, "pages more in %s", field)
	}
}

// The locked pages of a child that has 8 and may have some more.
func TestLockLimit(t *testing.T) {
	for _, c := range limitCases {
		if c.want == "ENOMEM" {
			c.want = "EAGAIN"
		}
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 64)
			child := locker(t, a, 8+c.left)
			r := child.Mremap(a.Page(0), kit.Len(c.old), kit.Len(c.new), c.flags, a.Page(32))
			assert.Equal(t, c.want, result(a, r))
		})
	}
}

// locker is a child with pages [0,8) locked, and a limit of so many pages, which binds it.
func locker(t *testing.T, a *kit.Arena, pages int) *kit.Actor {
	t.Helper()
	child := kit.Fork(t) // whose count begins at 0
	require.True(t, child.Mmap(a.Page(0), kit.Len(8), kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|unix.MAP_LOCKED, -1, 0).OK())
	require.True(t, child.Mmap(a.Page(60), kit.Len(4), kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, -1, 0).OK())
	limit(t, child, unix.RLIMIT_MEMLOCK, uint64(kit.Len(pages)))
	// Root may lock what it likes.
	require.True(t, child.Call(unix.SYS_SETRESUID, 1000, 1000, 1000).OK())
	return child
}

// How many pages count as locked afterwards shows in how many more may be.
func TestLockedCountFollows(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new int
		flags    int
		want     int
	}{
		{"move", 8, 8, fixed, 8},
		{"move-and-grow", 8, 10, fixed, 10},
		{"move-and-shrink", 8, 1, fixed, 1},
		{"grow", 8, 10, 0, 10},
		{"shrink", 8, 3, 0, 3},
		{"part", 2, 2, fixed, 8},
		{"part-and-grow", 2, 4, fixed, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 64)
			child := locker(t, a, 12)
			require.True(t, child.Mremap(a.Page(0), kit.Len(c.old), kit.Len(c.new), c.flags, a.Page(32)).OK())
			left := 0
			for left < 4 && child.Mlock(a.Page(60+left), P) == 0 {
				left++
			}
			assert.Equal(t, min(4, 12-c.want), left)
		})
	}
}

// A mapping is not counted twice while it moves over another one.
func TestMoveAtTheLimitOverAnotherMapping(t *testing.T) {
	a := kit.NewArena(t, 64)
	child := kit.Fork(t)
	for _, page := range []int{0, 32} {
		require.True(t, child.Mmap(a.Page(page), kit.Len(8), kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, -1, 0).OK())
	}
	limit(t, child, unix.RLIMIT_AS, kilobytes(t, child, "VmSize"))
	assert.Equal(t, "p32", result(a, child.Mremap(a.Page(0), kit.Len(8), kit.Len(8), fixed, a.Page(32))))
}
