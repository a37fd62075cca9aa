// munmap and mprotect that must split a mapping when no further one is allowed: they fail, and nothing has
// changed; and what needs no split still works.
package broken

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// reachable is how many mappings a test is ready to make.
const reachable = 1 << 18

// full is a child that may have no further mapping. Pages [0,4) of its arena are one mapping, [5,9) another,
// and [12,16) are two.
func full(t *testing.T) (*kit.Arena, *kit.Actor) {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/vm/max_map_count")
	require.NoError(t, err)
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	if limit > reachable {
		t.Skipf("vm.max_map_count is %d: too many to make", limit)
	}
	a := kit.NewArena(t, limit+1024)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 0x10)
	a.Anon(t, 5, 4, kit.RW, 0)
	a.Anon(t, 12, 2, kit.RW, 0)
	a.Anon(t, 14, 2, unix.PROT_READ, 0)
	// Most are made here, where a call is fast, and leave enough for Go; the last ones by the child.
	page := 20
	add := func(call func(addr uintptr) bool) bool {
		page++
		return call(a.Page(page))
	}
	flags := uintptr(unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED | unix.MAP_NORESERVE)
	for range limit - 400 {
		require.True(t, add(func(addr uintptr) bool {
			_, _, errno := syscall.RawSyscall6(unix.SYS_MMAP, addr, kit.Len(1), uintptr(page%2*unix.PROT_READ), flags, ^uintptr(0), 0)
			return errno == 0
		}))
	}
	child := kit.Fork(t)
	for add(func(addr uintptr) bool {
		return child.Mmap(addr, kit.Len(1), page%2*unix.PROT_READ, int(flags), -1, 0).OK()
	}) {
		require.Less(t, page, limit+1024, "more mappings than vm.max_map_count allows")
	}
	return a, child
}

// near is the layout of the first pages. It does not read on, through all the others.
func near(t *testing.T, a *kit.Arena, child *kit.Actor) []string {
	t.Helper()
	first := &kit.Arena{Base: a.Base, Pages: 18}
	maps, err := os.Open(child.Proc() + "/maps")
	require.NoError(t, err)
	defer maps.Close()
	var layout []string
	for scanner := bufio.NewScanner(maps); scanner.Scan(); {
		lines, err := kit.ParseMaps(scanner.Bytes())
		require.NoError(t, err)
		if lines[0].Start >= first.End() {
			break
		}
		for _, l := range first.Clip(lines) {
			layout = append(layout, first.Show(l))
		}
	}
	return layout
}

func TestAtTheLimitOfMappings(t *testing.T) {
	a, child := full(t)
	const anonymous = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED
	before := near(t, a, child)
	for _, c := range []struct {
		name string
		call func() unix.Errno
		want unix.Errno
	}{
		{"mmap", func() unix.Errno {
			return child.Mmap(a.Page(10), kit.Len(1), kit.RW, anonymous|unix.MAP_GROWSDOWN, -1, 0).Errno
		}, unix.ENOMEM},
		{"munmap", func() unix.Errno { return child.Munmap(a.Page(1), kit.Len(1)) }, unix.ENOMEM},
		{"mprotect", func() unix.Errno { return child.Mprotect(a.Page(1), kit.Len(1), unix.PROT_READ) }, unix.ENOMEM},
		{"mprotect-first", func() unix.Errno { return child.Mprotect(a.Page(0), kit.Len(1), unix.PROT_READ) }, unix.ENOMEM},
		{"mprotect-last", func() unix.Errno { return child.Mprotect(a.Page(3), kit.Len(1), unix.PROT_READ) }, unix.ENOMEM},
		{"mmap-inside", func() unix.Errno { return child.Mmap(a.Page(1), kit.Len(1), unix.PROT_READ, anonymous, -1, 0).Errno }, unix.ENOMEM},
		{"mremap", func() unix.Errno { return child.Mremap(a.Page(1), kit.Len(1), kit.Len(1), fixed, a.Page(10)).Errno }, unix.ENOMEM},
		{"mremap-shrink-inside", func() unix.Errno { return child.Mremap(a.Page(0), kit.Len(3), kit.Len(1), 0, 0).Errno }, unix.ENOMEM},
		{"mlock", func() unix.Errno { return child.Mlock(a.Page(1), kit.Len(1)) }, unix.ENOMEM},
		{"madvise", func() unix.Errno { return child.Madvise(a.Page(1), kit.Len(1), unix.MADV_DONTFORK) }, unix.EAGAIN},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, kit.ErrnoName(c.want), kit.ErrnoName(c.call()))
			assert.Equal(t, before, near(t, a, child))
			assert.Equal(t, []string{"10", "11", "12", "13"}, a.Bytes(child, 0, 4))
		})
	}
	for _, c := range []struct {
		name string
		call func() unix.Errno
	}{
		{"mprotect-all", func() unix.Errno { return child.Mprotect(a.Page(0), kit.Len(4), kit.RW) }},
		{"mprotect-into-neighbour", func() unix.Errno { return child.Mprotect(a.Page(13), kit.Len(1), unix.PROT_READ) }},
		{"munmap-first", func() unix.Errno { return child.Munmap(a.Page(5), kit.Len(1)) }},
		{"munmap-last", func() unix.Errno { return child.Munmap(a.Page(8), kit.Len(1)) }},
		{"munmap-all", func() unix.Errno { return child.Munmap(a.Page(6), kit.Len(10)) }},
		{"room-again", func() unix.Errno { return child.Munmap(a.Page(1), kit.Len(1)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, "ok", kit.ErrnoName(c.call()))
			kit.Say(t, "%q", near(t, a, child))
		})
	}
	assert.Equal(t, []string{"10", "SIGSEGV/MAPERR", "12", "13"}, a.Bytes(child, 0, 4))
}
