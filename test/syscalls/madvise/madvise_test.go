// These tests are about madvise(2): what each advice returns for each kind of mapping, what it does to
// contents, to flags and to mappings, and what it does with holes.
package madvise

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// Advice that package unix has no names for.
const (
	guardInstall = 102 // MADV_GUARD_INSTALL, Linux 6.13
	guardRemove  = 103 // MADV_GUARD_REMOVE
)

// advise is madvise of pages [i, i+n) by this process.
func advise(a *kit.Arena, i, n, advice int) unix.Errno {
	return kit.Me.Madvise(a.Page(i), kit.Len(n), advice)
}

// mustAdvise is advise where nothing may go wrong.
func mustAdvise(t testing.TB, a *kit.Arena, i, n, advice int) {
	t.Helper()
	e := advise(a, i, n, advice)
	require.Zero(t, e, "advice %d: %s", advice, kit.ErrnoName(e))
}

// contents is what an actor finds at the first bytes of pages [i, i+n), in one line: in hexadecimal, or the
// name of the signal without its code.
func contents(a *kit.Arena, actor *kit.Actor, i, n int) string {
	found := a.Bytes(actor, i, n)
	for k, c := range found {
		found[k], _, _ = strings.Cut(c, "/")
	}
	return strings.Join(found, " ")
}

// flagged is the arena's mappings, each with those of these VmFlags that it has, as in "p0-p2 hg, p2-p3".
func flagged(t testing.TB, a *kit.Arena, actor *kit.Actor, flags ...string) string {
	t.Helper()
	entries := a.Smaps(t, actor)
	var found []string
	for _, l := range a.Maps(t, actor) {
		text := a.Where(l.Start) + "-" + a.Where(l.End)
		has := strings.Fields(entries[int(l.Start-a.Base)/kit.PageSize]["VmFlags"])
		for _, flag := range flags {
			if slices.Contains(has, flag) {
				text += " " + flag
			}
		}
		found = append(found, text)
	}
	return strings.Join(found, ", ")
}
