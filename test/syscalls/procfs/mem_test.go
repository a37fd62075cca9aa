// /proc/[pid]/mem, pagemap and map_files: the pages themselves.
package procfs

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func openMem(t *testing.T, actor *kit.Actor) int {
	t.Helper()
	return kit.Open(t, actor.Proc()+"/mem", unix.O_RDWR)
}

func TestMemReads(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 1, 2, kit.RW, 0)
	a.Fill(t, 1, 2, 0x21)
	a.Map(t, 4, 2, unix.PROT_READ, unix.MAP_SHARED, kit.Memfd(t, 2, 0), 0)
	child := kit.Fork(t)
	for name, actor := range map[string]*kit.Actor{"self": kit.Me, "child": child} {
		t.Run(name, func(t *testing.T) {
			fd := kit.Open(t, actor.Proc()+"/mem", unix.O_RDONLY)
			got := make([]byte, 2*kit.PageSize)
			for _, c := range []struct {
				name   string
				page   int
				length int
				want   int
				first  byte
			}{
				{"anonymous", 1, 2, 2, 0x21},
				{"file", 4, 1, 1, 'A'},
				{"into-a-hole", 2, 2, 1, 0x22},
			} {
				t.Run(c.name, func(t *testing.T) {
					n, err := unix.Pread(fd, got[:c.length*kit.PageSize], int64(a.Page(c.page)))
					require.NoError(t, err)
					assert.Equal(t, c.want*kit.PageSize, n)
					assert.Equal(t, c.first, got[0])
				})
			}
			t.Run("hole", func(t *testing.T) {
				_, err := unix.Pread(fd, got[:1], int64(a.Page(7)))
				assert.Equal(t, unix.EIO, err)
			})
		})
	}
}

// It reads what the process itself may not.
func TestMemReadsInaccessibleMemory(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 1, kit.RW, 0)
	a.Fill(t, 0, 1, 0x55)
	require.Zero(t, kit.Me.Mprotect(a.Page(0), P, unix.PROT_NONE))
	got := make([]byte, 1)
	n, err := unix.Pread(kit.Open(t, "/proc/self/mem", unix.O_RDONLY), got, int64(a.Page(0)))
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	assert.Equal(t, byte(0x55), got[0])
}

func TestMemWrites(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 1, kit.RW, 0)
	child := kit.Fork(t)
	for name, actor := range map[string]*kit.Actor{"self": kit.Me, "child": child} {
		t.Run(name, func(t *testing.T) {
			n, err := unix.Pwrite(openMem(t, actor), []byte{0x66}, int64(a.Page(0)))
			require.NoError(t, err)
			assert.Equal(t, 1, n)
			assert.Equal(t, kit.Access{Value: 0x66}, actor.Load(a.Page(0)))
		})
	}
}

// A debugger sets breakpoints in code by it: private memory is written to whatever its protection is, and
// the file that it came from is not.
func TestMemWritesToReadOnlyMemory(t *testing.T) {
	a := kit.NewArena(t, 8)
	fd := kit.Memfd(t, 1, 0)
	a.Anon(t, 0, 1, unix.PROT_READ, 0)
	a.Map(t, 2, 1, unix.PROT_READ, unix.MAP_PRIVATE, fd, 0)
	for name, page := range map[string]int{"anonymous": 0, "file": 2} {
		t.Run(name, func(t *testing.T) {
			n, err := unix.Pwrite(openMem(t, kit.Me), []byte{0x66}, int64(a.Page(page)))
			require.NoError(t, err)
			assert.Equal(t, 1, n)
			assert.Equal(t, kit.Access{Value: 0x66}, kit.Me.Load(a.Page(page)))
			assert.True(t, kit.Me.Store(a.Page(page), 1).Faulted())
		})
	}
	got := make([]byte, 1)
	_, err := unix.Pread(fd, got, 0)
	require.NoError(t, err)
	assert.Equal(t, byte('A'), got[0])
}

func TestMemDoesNotWriteToReadOnlySharedMemory(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Map(t, 0, 1, unix.PROT_READ, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
	_, err := unix.Pwrite(openMem(t, kit.Me), []byte{0x66}, int64(a.Page(0)))
	assert.Error(t, err)
	assert.Equal(t, kit.Access{Value: 'A'}, kit.Me.Load(a.Page(0)))
	t.Run("error", func(t *testing.T) { assert.Equal(t, unix.EIO, err) })
}

func TestMemOfAProcessThatEndedIsEmpty(t *testing.T) {
	child := kit.Fork(t)
	fd := kit.Open(t, child.Proc()+"/mem", unix.O_RDONLY)
	child.Exit(t, 0)
	a := kit.NewArena(t, 1)
	a.Anon(t, 0, 1, kit.RW, 0)
	n, err := unix.Pread(fd, make([]byte, 1), int64(a.Page(0)))
	require.NoError(t, err)
	assert.Zero(t, n)
}

// An entry of pagemap has its highest bit set for a page that is there. Bit 61 says that it is a file's.
func TestPagemap(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 1, 1)
	a.Map(t, 4, 1, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
	a.Fill(t, 4, 1, 1)
	fd := kit.Open(t, "/proc/self/pagemap", unix.O_RDONLY)
	entry := func(page int) uint64 {
		bytes := make([]byte, 8)
		n, err := unix.Pread(fd, bytes, int64(a.Page(page)/P*8))
		require.NoError(t, err)
		require.Equal(t, 8, n)
		return binary.NativeEndian.Uint64(bytes)
	}
	const present, ofFile = uint64(1) << 63, uint64(1) << 61
	assert.EqualValues(t, present, entry(0)&(present|ofFile), "touched")
	assert.Zero(t, entry(1)&present, "untouched")
	assert.Zero(t, entry(3), "unmapped")
	assert.EqualValues(t, present|ofFile, entry(4)&(present|ofFile), "file")
}

func TestMapFiles(t *testing.T) {
	a := kit.NewArena(t, 8)
	path, fd := named(t, "file")
	a.Map(t, 1, 2, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
	a.Anon(t, 4, 1, kit.RW, 0)
	name := func(from, to int) string { return fmt.Sprintf("/proc/self/map_files/%x-%x", a.Page(from), a.Page(to)) }
	link, err := os.Readlink(name(1, 3))
	require.NoError(t, err)
	assert.Equal(t, path, link)
	data, err := os.ReadFile(name(1, 3))
	require.NoError(t, err)
	assert.Len(t, data, 4*kit.PageSize)
	_, err = os.Lstat(name(4, 5))
	assert.ErrorIs(t, err, os.ErrNotExist, "anonymous memory is no file")
	_, err = os.Lstat(name(1, 2))
	assert.ErrorIs(t, err, os.ErrNotExist, "part of a mapping")
}
