// How maps can be read: in small pieces, at offsets, again; of oneself, a thread, a child, one that ended.
package procfs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// still is a child that does nothing, with some mappings.
func still(t *testing.T) *kit.Actor {
	t.Helper()
	a := kit.NewArena(t, 64)
	for i := 0; i < 64; i += 2 {
		a.Anon(t, i, 1, kit.RW, 0)
	}
	return kit.Fork(t)
}

func TestSmallPiecesAreTheWhole(t *testing.T) {
	child := still(t)
	for _, size := range []int{1, 7, 100, 4096} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			whole, err := os.ReadFile(child.Proc() + "/maps")
			require.NoError(t, err)
			assert.True(t, string(whole) == string(inPieces(t, child.Proc()+"/maps", size)))
		})
	}
}

// The counts of smaps change when the parent writes to what the two share, so the lines with them are
// left out.
func TestSmallPiecesOfSmaps(t *testing.T) {
	child := still(t)
	for _, size := range []int{200, 4096} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			whole, err := os.ReadFile(child.Proc() + "/smaps")
			require.NoError(t, err)
			assert.True(t, withoutCounts(whole) == withoutCounts(inPieces(t, child.Proc()+"/smaps", size)))
		})
	}
}

func inPieces(t *testing.T, name string, size int) []byte {
	t.Helper()
	file, err := os.Open(name)
	require.NoError(t, err)
	defer file.Close()
	var pieces bytes.Buffer
	for buffer := make([]byte, size); ; {
		n, err := file.Read(buffer)
		pieces.Write(buffer[:n])
		if err == io.EOF {
			return pieces.Bytes()
		}
		require.NoError(t, err)
	}
}

// withoutCounts are the lines of mappings, of their sizes and flags.
func withoutCounts(smaps []byte) string {
	var kept strings.Builder
	for line := range strings.Lines(string(smaps)) {
		first, _, _ := strings.Cut(line, " ")
		if strings.Contains(first, "-") || first == "Size:" || first == "VmFlags:" {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func TestReadingAtAnOffset(t *testing.T) {
	child := still(t)
	file, err := os.Open(child.Proc() + "/maps")
	require.NoError(t, err)
	defer file.Close()
	whole, err := io.ReadAll(file)
	require.NoError(t, err)
	for _, offset := range []int{0, 1, 100, 1000, len(whole) - 3} {
		got := make([]byte, 50)
		n, err := file.ReadAt(got, int64(offset))
		if err != io.EOF {
			require.NoError(t, err)
		}
		assert.Equal(t, string(whole[offset:offset+n]), string(got[:n]))
		assert.NotZero(t, n)
	}
	n, err := file.ReadAt(make([]byte, 10), int64(len(whole)))
	assert.Zero(t, n)
	assert.Equal(t, io.EOF, err)
}

// A file that is read again from its start shows what has changed.
func TestReadingAgain(t *testing.T) {
	a := kit.NewArena(t, 4)
	file, err := os.Open("/proc/self/maps")
	require.NoError(t, err)
	defer file.Close()
	read := func() []string {
		_, err := file.Seek(0, io.SeekStart)
		require.NoError(t, err)
		data, err := io.ReadAll(file)
		require.NoError(t, err)
		all, err := kit.ParseMaps(data)
		require.NoError(t, err)
		var shown []string
		for _, l := range a.Clip(all) {
			shown = append(shown, a.Show(l))
		}
		return shown
	}
	assert.Empty(t, read())
	a.Anon(t, 1, 2, kit.RW, 0)
	assert.Equal(t, []string{"p1-p3 rw-p 0"}, read())
	require.Zero(t, kit.Me.Munmap(a.Page(1), P))
	assert.Equal(t, []string{"p2-p3 rw-p 0"}, read())
}

// A thread shows the mappings of its process.
func TestThreadShowsItsProcess(t *testing.T) {
	child := still(t)
	for _, name := range []string{"maps", "smaps"} {
		t.Run(name, func(t *testing.T) {
			process, err := os.ReadFile(child.Proc() + "/" + name)
			require.NoError(t, err)
			thread, err := os.ReadFile(fmt.Sprintf("%s/task/%d/%s", child.Proc(), child.Pid(), name))
			require.NoError(t, err)
			if name == "smaps" {
				assert.True(t, withoutCounts(process) == withoutCounts(thread))
			} else {
				assert.True(t, string(process) == string(thread))
			}
		})
	}
}

// A child begins with its parent's mappings and then has its own.
func TestChildShowsItsOwn(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 1, 4, kit.RW, 0)
	child := kit.Fork(t)
	assert.Equal(t, []string{"p1-p5 rw-p 0"}, a.Layout(t, child))
	require.Zero(t, child.Munmap(a.Page(2), P))
	require.Zero(t, kit.Me.Mprotect(a.Page(4), P, unix.PROT_READ))
	assert.Equal(t, []string{"p1-p2 rw-p 0", "p3-p5 rw-p 0"}, a.Layout(t, child))
	assert.Equal(t, []string{"p1-p4 rw-p 0", "p4-p5 r--p 0"}, a.Layout(t, kit.Me))
}

// zombie is a child that has ended and was not waited for.
func zombie(t *testing.T) *kit.Actor {
	t.Helper()
	child := kit.Fork(t)
	child.Call(unix.SYS_EXIT_GROUP, 0)
	return child
}

func TestZombieHasNoMaps(t *testing.T) {
	data, err := os.ReadFile(zombie(t).Proc() + "/maps")
	require.NoError(t, err)
	assert.Empty(t, data)
}

func TestZombieHasNoSizes(t *testing.T) {
	assert.Equal(t, "absent", kit.Status(t, zombie(t), "VmSize"))
}

func TestStatmOfAZombieIsZero(t *testing.T) {
	assert.Equal(t, make([]int, 7), statm(t, zombie(t)))
}

// A file that was opened before its process ended is empty after that.
func TestMapsOfAProcessThatEnds(t *testing.T) {
	child := still(t)
	file, err := os.Open(child.Proc() + "/maps")
	require.NoError(t, err)
	defer file.Close()
	child.Exit(t, 0)
	data, err := io.ReadAll(file)
	if err == nil {
		assert.Empty(t, data)
	} else {
		assert.ErrorIs(t, err, unix.ESRCH)
	}
}
