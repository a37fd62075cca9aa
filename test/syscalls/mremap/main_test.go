// Package mremap claims what mremap(2) does to addresses, contents, limits and neighbours.
package mremap

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// Short names of the flags, for tables.
const (
	may       = unix.MREMAP_MAYMOVE
	fixed     = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED
	dontUnmap = unix.MREMAP_MAYMOVE | unix.MREMAP_DONTUNMAP
)

// P is the length of a page.
var P = kit.Len(1)

// file is a new file of so many pages whose name, which layouts show, is always the same.
func file(t testing.TB, pages int) int {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	var data []byte
	for i := range pages {
		for range kit.PageSize {
			data = append(data, kit.PageByte(i))
		}
	}
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return kit.Open(t, path, unix.O_RDWR)
}

// result is where a call put the mapping: a page of the arena, "elsewhere", or the name of an error.
func result(a *kit.Arena, r kit.Result) string {
	switch {
	case !r.OK():
		return r.String()
	case a.Where(r.Value) == "outside":
		return "elsewhere"
	}
	return a.Where(r.Value)
}

// strict is the layout of the arena, line by line as /proc/self/maps has it. Whether a segment of shared
// memory is called deleted is for another suite.
func strict(t testing.TB, a *kit.Arena) []string {
	t.Helper()
	lines := a.Layout(t, kit.Me)
	for i, line := range lines {
		if strings.Contains(line, " SYSV") {
			lines[i] = strings.TrimSuffix(line, " (deleted)")
		}
	}
	return lines
}

// layout is strict, with adjacent lines of anonymous memory in one: whether pages that have been written
// to are one mapping with their neighbours depends on where they were then, and Linux promises nothing.
func layout(t testing.TB, a *kit.Arena) []string {
	t.Helper()
	var joined []string
	for _, line := range strict(t, a) {
		if n := len(joined); n > 0 {
			start, end, rest := cut(joined[n-1])
			if next, last, more := cut(line); end == next && rest == more && strings.HasSuffix(rest, "p 0") {
				joined[n-1] = start + "-" + last + " " + rest
				continue
			}
		}
		joined = append(joined, line)
	}
	return joined
}

func cut(line string) (start, end, rest string) {
	addresses, rest, _ := strings.Cut(line, " ")
	start, end, _ = strings.Cut(addresses, "-")
	return start, end, rest
}

// contents is the first byte of each of n pages, or the signal. The code of SIGBUS is for another suite.
func contents(actor *kit.Actor, addr uintptr, n int) []string {
	var found []string
	for k := range n {
		access := actor.Load(addr + kit.Len(k))
		switch {
		case access.Signal == unix.SIGBUS:
			found = append(found, "SIGBUS")
		case access.Faulted():
			found = append(found, access.SignalName())
		default:
			found = append(found, fmt.Sprintf("%02x", access.Value))
		}
	}
	return found
}

// unmapAfter unmaps what the kernel placed, when the test is over.
func unmapAfter(t testing.TB, addr uintptr, pages int) {
	t.Cleanup(func() { kit.Me.Munmap(addr, kit.Len(pages)) })
}

// repeat is n times the same.
func repeat(s string, n int) []string {
	var all []string
	for range n {
		all = append(all, s)
	}
	return all
}

// after calls mremap and says the result, and the layout and contents of the arena's first n pages then.
func after(t testing.TB, a *kit.Arena, n int, from, old, grown int, flags int, to int) kit.Result {
	t.Helper()
	r := kit.Me.Mremap(a.Page(from), kit.Len(old), kit.Len(grown), flags, a.Page(to))
	kit.Say(t, "%s", result(a, r))
	kit.Say(t, "%q", layout(t, a))
	kit.Say(t, "%v", contents(kit.Me, a.Base, n))
	return r
}

// limit sets a limit of a child from outside: a pointer of this process means nothing there.
func limit(t testing.TB, child *kit.Actor, resource int, value uint64) {
	t.Helper()
	require.NoError(t, unix.Prlimit(child.Pid(), resource, &unix.Rlimit{Cur: value, Max: value}, nil))
}
