// Package signals claims what signal a bad access raises, with what code and address, and what becomes of
// the process: SIGSEGV and SIGBUS, and EFAULT where it is the kernel that accesses.
package signals

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const anonymous = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED

// The pages of a stage.
const (
	hole = iota
	none
	readOnly
	writable
	code      // readable, executable
	fileStart // a shared file of one page
	fileEnd   // beyond its end
	cutStart  // a private file that was cut off to one page
	cutEnd    // beyond that
	lone      // unmapped, behind all
	stagePages
)

// stage maps one page of each sort, and returns the descriptor of the shared file.
func stage(t *testing.T) (*kit.Arena, int) {
	t.Helper()
	a := kit.NewArena(t, stagePages)
	a.Anon(t, none, 1, unix.PROT_NONE, 0)
	a.Anon(t, readOnly, 1, unix.PROT_READ, 0)
	a.Anon(t, writable, 1, kit.RW, 0)
	a.Anon(t, code, 1, kit.RW, 0)
	copy(a.Memory(code, 1), kit.ReturnCode)
	require.Zero(t, kit.Me.Mprotect(a.Page(code), kit.Len(1), unix.PROT_READ|unix.PROT_EXEC))
	shared := kit.File(t, 1)
	a.Map(t, fileStart, 2, kit.RW, unix.MAP_SHARED, shared, 0)
	cut := kit.File(t, 2)
	a.Map(t, cutStart, 2, kit.RW, unix.MAP_PRIVATE, cut, 0)
	a.Fill(t, cutStart, 2, 0x20)
	require.NoError(t, unix.Ftruncate(cut, int64(kit.Len(1))))
	return a, shared
}

// actors are a thread of every sort. Each is made by the test, when what it is to have is there.
func actors(t *testing.T, test func(t *testing.T, make func() *kit.Actor)) {
	for _, c := range []struct {
		name string
		make func(t *testing.T) *kit.Actor
	}{
		{"me", func(*testing.T) *kit.Actor { return kit.Me }},
		{"thread", func(t *testing.T) *kit.Actor { return kit.NewThread(t) }},
		{"child", func(t *testing.T) *kit.Actor { return kit.Fork(t) }},
	} {
		t.Run(c.name, func(t *testing.T) { test(t, func() *kit.Actor { return c.make(t) }) })
	}
}
