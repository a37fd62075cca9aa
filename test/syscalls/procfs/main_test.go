// Package procfs claims what /proc says about memory: maps, smaps, statm, status, mem, pagemap and
// map_files; and that they agree with each other.
package procfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

var P = kit.Len(1)

// named is a new file of four pages with a name of its own choice, open until the test ends.
func named(t *testing.T, name string) (path string, fd int) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, make([]byte, 4*kit.PageSize), 0o600))
	return path, kit.Open(t, path, unix.O_RDWR)
}

// lines are all of maps of an actor's process.
func lines(t *testing.T, actor *kit.Actor) []kit.Line {
	t.Helper()
	data, err := os.ReadFile(actor.Proc() + "/maps")
	require.NoError(t, err)
	all, err := kit.ParseMaps(data)
	require.NoError(t, err)
	return all
}

// counted leaves out the page of x86 that is shown in maps, and is nobody's memory.
func counted(all []kit.Line) []kit.Line {
	var own []kit.Line
	for _, l := range all {
		if l.Name != "[vsyscall]" {
			own = append(own, l)
		}
	}
	return own
}

// kilobytes is the number of a field such as "12 kB".
func kilobytes(t *testing.T, value string) int {
	t.Helper()
	number, ok := strings.CutSuffix(value, " kB")
	require.True(t, ok, "%q is not a number of kB", value)
	n, err := strconv.Atoi(strings.TrimSpace(number))
	require.NoError(t, err)
	return n
}

// status is a field of status in bytes.
func status(t *testing.T, actor *kit.Actor, field string) uintptr {
	t.Helper()
	return uintptr(kilobytes(t, kit.Status(t, actor, field))) << 10
}

// statm are the numbers of statm, in pages.
func statm(t *testing.T, actor *kit.Actor) []int {
	t.Helper()
	data, err := os.ReadFile(actor.Proc() + "/statm")
	require.NoError(t, err)
	var numbers []int
	for field := range strings.FieldsSeq(string(data)) {
		n, err := strconv.Atoi(field)
		require.NoError(t, err)
		numbers = append(numbers, n)
	}
	require.Len(t, numbers, 7, "statm")
	return numbers
}

// pages is a count of pages as smaps shows it.
func pages(n int) string { return fmt.Sprintf("%d kB", n*kit.PageSize/1024) }

// mapIn maps pages in a child.
func mapIn(t *testing.T, a *kit.Arena, child *kit.Actor, page, n, prot, flags int) {
	t.Helper()
	require.True(t, child.Mmap(a.Page(page), kit.Len(n), prot, flags|unix.MAP_FIXED, -1, 0).OK())
}

const (
	private = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	shared  = unix.MAP_SHARED | unix.MAP_ANONYMOUS
)
