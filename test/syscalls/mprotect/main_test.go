// What mprotect(2) promises. This file holds what the other files of the suite share, and claims which arguments
// it refuses.
package mprotect

import (
	"testing"

	"github.com/stretchr/testify/assert"
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
	rx     = unix.PROT_READ | unix.PROT_EXEC
	denied = "SIGSEGV/ACCERR"
	gone   = "SIGSEGV/MAPERR"
)

// protect changes pages [i, i+n), and fails the test if it cannot.
func protect(t testing.TB, a *kit.Arena, i, n, prot int) {
	t.Helper()
	if e := kit.Me.Mprotect(a.Page(i), kit.Len(n), prot); e != 0 {
		t.Fatalf("mprotect of pages [%d,%d): %v", i, i+n, e)
	}
}

// ranges is the layout without names, which differ from run to run.
func ranges(t testing.TB, a *kit.Arena) []string {
	t.Helper()
	var found []string
	for _, l := range a.Maps(t, kit.Me) {
		l.Name = ""
		found = append(found, a.Show(l))
	}
	return found
}

func TestArguments(t *testing.T) {
	page := kit.Len(1)
	for name, c := range map[string]struct {
		addr, length uintptr // addr is relative to the arena, of which pages 0 and 1 are mapped
		prot         int
		want         unix.Errno
	}{
		"address not aligned":                 {1, page, ro, unix.EINVAL},
		"address not aligned and length 0":    {1, 0, ro, unix.EINVAL},
		"length 0":                            {0, 0, ro, 0},
		"length 0 where nothing is mapped":    {2 * page, 0, ro, 0},
		"length 0 and a bit nobody knows":     {0, 0, 1 << 20, 0},
		"length that overflows":               {0, ^uintptr(0), ro, unix.ENOMEM},
		"length that wraps around":            {0, ^uintptr(0xfff), ro, unix.ENOMEM},
		"bit of the protection nobody knows":  {0, page, ro | 1<<20, unix.EINVAL},
		"unknown bit where nothing is mapped": {2 * page, page, 1 << 20, unix.EINVAL},
		"PROT_SEM":                            {0, page, ro | 8, 0},
		"PROT_GROWSUP and PROT_GROWSDOWN":     {0, page, ro | unix.PROT_GROWSUP | unix.PROT_GROWSDOWN, unix.EINVAL},
		"both and length 0":                   {0, 0, ro | unix.PROT_GROWSUP | unix.PROT_GROWSDOWN, unix.EINVAL},
		"PROT_GROWSDOWN, does not grow":       {0, page, ro | unix.PROT_GROWSDOWN, unix.EINVAL},
		"PROT_GROWSUP, does not grow":         {0, page, ro | unix.PROT_GROWSUP, unix.EINVAL},
		"PROT_GROWSDOWN in a hole":            {2 * page, page, ro | unix.PROT_GROWSDOWN, unix.ENOMEM},
		"PROT_GROWSDOWN and length 0":         {0, 0, ro | unix.PROT_GROWSDOWN, 0},
		"nothing is mapped":                   {2 * page, page, ro, unix.ENOMEM},
		"end is not mapped":                   {page, 2 * page, rw, unix.ENOMEM},
		"beyond the address space":            {1 << 62, page, ro, unix.ENOMEM},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 0, 2, rw, 0)
			e := kit.Me.Mprotect(a.Base+c.addr, c.length, c.prot)
			kit.Say(t, "%s", kit.ErrnoName(e))
			assert.Equal(t, c.want, e)
			if e != 0 {
				assert.Equal(t, []string{"p0-p2 rw-p 0"}, a.Layout(t, kit.Me))
			}
		})
	}
}

func TestLengthIsRoundedUp(t *testing.T) {
	for name, c := range map[string]struct {
		length uintptr
		want   []string
	}{
		"1":          {1, []string{"p0-p1 r--p 0", "p1-p4 rw-p 0"}},
		"page and 1": {kit.Len(1) + 1, []string{"p0-p2 r--p 0", "p2-p4 rw-p 0"}},
		"all but 1":  {kit.Len(4) - 1, []string{"p0-p4 r--p 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 0, 4, rw, 0)
			assert.Equal(t, unix.Errno(0), kit.Me.Mprotect(a.Base, c.length, ro))
			kit.Say(t, "%v", a.Layout(t, kit.Me))
			assert.Equal(t, c.want, a.Layout(t, kit.Me))
		})
	}
}
