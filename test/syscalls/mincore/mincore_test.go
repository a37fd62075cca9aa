// These tests are about mincore(2): what it refuses, and which pages it calls resident.
package mincore

import (
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// residency is what mincore says of pages [i, i+n): a digit for each, 1 for resident.
func residency(t testing.TB, a *kit.Arena, i, n int) string {
	t.Helper()
	vec := kit.Shared(t, n) // where it does not move, unlike Go's stacks
	e := kit.Me.Mincore(a.Page(i), kit.Len(n), vec)
	require.Zero(t, e, kit.ErrnoName(e))
	var text strings.Builder
	for _, v := range vec {
		// The other bits are reserved.
		text.WriteByte('0' + v&1)
	}
	return text.String()
}

func TestArguments(t *testing.T) {
	page := uintptr(kit.PageSize)
	at := func(i int, more uintptr) func(*kit.Arena) uintptr {
		return func(a *kit.Arena) uintptr { return a.Page(i) + more }
	}
	for _, c := range []struct {
		name   string
		addr   func(*kit.Arena) uintptr
		length uintptr
		want   unix.Errno
	}{
		{"all", at(0, 0), 2 * page, 0},
		{"length is rounded up", at(1, 0), 1, 0},
		{"length that reaches into a hole", at(1, 0), page + 1, unix.ENOMEM},
		{"nothing", at(0, 0), 0, 0},
		{"nothing where nothing is", at(3, 0), 0, 0},
		{"unaligned", at(0, 1), page, unix.EINVAL},
		{"unaligned and nothing", at(0, 1), 0, unix.EINVAL},
		{"unaligned where nothing is", at(3, 1), page, unix.EINVAL},
		{"where nothing is", at(3, 0), page, unix.ENOMEM},
		{"hole at the start", at(-1, 0), 2 * page, unix.ENOMEM},
		{"wraps around", at(0, 0), -page, unix.ENOMEM},
		{"length that rounds up to nothing", at(0, 0), ^uintptr(0), unix.ENOMEM},
		{"the kernel's addresses", func(*kit.Arena) uintptr { return 1 << 63 }, page, unix.ENOMEM},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 0, 2, kit.RW, 0)
			a.Fill(t, 0, 2, 1)
			got := kit.Me.Mincore(c.addr(a), c.length, kit.Shared(t, 16))
			assert.Equal(t, c.want, got, kit.ErrnoName(got))
			kit.Say(t, "%s", kit.ErrnoName(got))
		})
	}
}

func TestVector(t *testing.T) {
	call := func(a *kit.Arena, n int, vec uintptr) unix.Errno {
		return kit.Me.Call(unix.SYS_MINCORE, a.Page(0), kit.Len(n), vec).Errno
	}
	t.Run("has a byte a page and no more", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 4, kit.RW, 0)
		a.Fill(t, 0, 4, 1)
		vec := kit.Shared(t, 5)
		vec[0], vec[4] = 0xee, 0xee
		require.Zero(t, call(a, 3, uintptr(unsafe.Pointer(&vec[1]))))
		assert.Equal(t, byte(0xee), vec[0])
		assert.Equal(t, byte(0xee), vec[4])
		assert.Equal(t, []byte{1, 1, 1}, []byte{vec[1] & 1, vec[2] & 1, vec[3] & 1})
	})
	t.Run("read only", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 1, unix.PROT_READ, 0)
		assert.Equal(t, unix.EFAULT, call(a, 1, a.Page(0)))
	})
	t.Run("not mapped", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 1, kit.RW, 0)
		assert.Equal(t, unix.EFAULT, call(a, 1, a.Page(2)))
	})
	t.Run("not mapped at its end", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 2, kit.RW, 0)
		assert.Equal(t, unix.EFAULT, call(a, 2, a.Page(2)-1))
	})
	t.Run("for nothing", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 1, kit.RW, 0)
		assert.Zero(t, call(a, 0, a.Page(2)))
	})
	t.Run("in the mapping it is about", func(t *testing.T) {
		a := kit.NewArena(t, 4)
		a.Anon(t, 0, 2, kit.RW, 0)
		a.Fill(t, 0, 2, 2)
		require.Zero(t, call(a, 2, a.Page(0)))
		assert.Equal(t, uint64(1), kit.Me.Load(a.Page(0)).Value&1)
	})
	t.Run("of many pages", func(t *testing.T) {
		const pages = 3 * 4096 // more than fit into a page of the vector
		a := kit.NewArena(t, pages)
		a.Anon(t, 0, pages, kit.RW, 0)
		a.Fill(t, pages-1, 1, 1)
		assert.True(t, strings.HasSuffix(residency(t, a, 0, pages), "1"))
	})
}
