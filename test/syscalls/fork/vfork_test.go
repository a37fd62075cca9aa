// These tests claim that a child that shares its parent's memory until it executes something, as os/exec's do
// by CLONE_VM and CLONE_VFORK, leaves that memory and its mappings as they are.
package fork

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

var _ = kit.Program("fork-say", func(args []string) { os.Stdout.WriteString(args[0]) })

func TestSpawnLeavesMemoryAlone(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Map(t, 2, 2, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 2, 0), 0)
	a.Fill(t, 0, 4, 1)
	before := a.Layout(t, kit.Me)
	assert.Equal(t, "hello", kit.Run(t, "fork-say", "hello"))
	assert.Equal(t, before, a.Layout(t, kit.Me))
	assert.Equal(t, "01 02 03 04", contents(a, kit.Me, 0, 4))
	a.Fill(t, 0, 4, 5)
	assert.Equal(t, "05 06 07 08", contents(a, kit.Me, 0, 4))
}

func TestSpawnThatFailsLeavesMemoryAlone(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 1)
	for range 5 {
		_, err := os.StartProcess("/nonexistent/program", []string{"x"}, &os.ProcAttr{})
		require.ErrorIs(t, err, unix.ENOENT)
	}
	assert.Equal(t, "01 02", contents(a, kit.Me, 0, 2))
	assert.Equal(t, []string{"p0-p2 rw-p 0"}, a.Layout(t, kit.Me))
}

func TestSpawnWhileThreadsWrite(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	last := [2]uint64{}
	write := func(thread int, count uint64) {
		*word(a, thread) = count
		last[thread] = count
	}
	whileWriting(2, write, func() {
		for range 2 {
			assert.Equal(t, "hi", kit.Run(t, "fork-say", "hi"))
		}
	})
	assert.Equal(t, last, [2]uint64{*word(a, 0), *word(a, 1)})
}
