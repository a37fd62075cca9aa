// What a moved mapping keeps: permissions, what mprotect may allow, locks, advice, sharing with other
// processes; and what happens at the end of the file.
package mremap

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestPermissionsMoveAlong(t *testing.T) {
	for name, prot := range map[string]int{
		"none": unix.PROT_NONE, "read": unix.PROT_READ, "exec": unix.PROT_READ | unix.PROT_EXEC,
		"all": kit.RW | unix.PROT_EXEC,
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 16)
			a.Anon(t, 0, 1, kit.RW, 0)
			copy(a.Memory(0, 1), kit.ReturnCode)
			require.Zero(t, kit.Me.Mprotect(a.Page(0), P, prot))
			r := kit.Me.Mremap(a.Page(0), P, kit.Len(2), fixed, a.Page(8))
			require.True(t, r.OK())
			kit.Say(t, "%q", layout(t, a))
			for page := range 2 {
				assert.Equal(t, prot&unix.PROT_READ == 0, kit.Me.Load(a.Page(8+page)).Faulted())
				assert.Equal(t, prot&unix.PROT_WRITE == 0, kit.Me.Store(a.Page(8+page)+64, 1).Faulted())
			}
			assert.Equal(t, prot&unix.PROT_EXEC == 0, kit.Me.Exec(a.Page(8)).Faulted())
		})
	}
}

// A shared mapping of a file that is open for reading cannot become writable, wherever it goes.
func TestReadOnlyFileStaysReadOnly(t *testing.T) {
	a := kit.NewArena(t, 16)
	path := kit.Dirs()[0].NamedFile(t, 4)
	a.Map(t, 0, 2, unix.PROT_READ, unix.MAP_SHARED, kit.Open(t, path, unix.O_RDONLY), 0)
	require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(3), fixed, a.Page(8)).OK())
	assert.Equal(t, unix.EACCES, kit.Me.Mprotect(a.Page(8), kit.Len(3), kit.RW))
}

// flagsAt are the flags that smaps shows for the mapping that begins at a page.
func flagsAt(t *testing.T, a *kit.Arena, page int) []string {
	t.Helper()
	return strings.Fields(a.Smaps(t, kit.Me)[page]["VmFlags"])
}

func TestLockMovesAlong(t *testing.T) {
	a := kit.NewArena(t, 16)
	a.Anon(t, 0, 2, kit.RW, 0)
	require.Zero(t, kit.Me.Mlock(a.Page(0), kit.Len(2)))
	require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(4), fixed, a.Page(8)).OK())
	assert.Contains(t, flagsAt(t, a, 8), "lo")
	resident := make([]byte, 4)
	require.Zero(t, kit.Me.Mincore(a.Page(8), kit.Len(4), resident))
	assert.Equal(t, []byte{1, 1, 1, 1}, resident, "what is new is populated")
}

func TestCopyOfALockedMappingIsLocked(t *testing.T) {
	a := kit.NewArena(t, 16)
	a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
	require.Zero(t, kit.Me.Mlock(a.Page(0), kit.Len(2)))
	require.True(t, kit.Me.Mremap(a.Page(0), 0, kit.Len(2), fixed, a.Page(8)).OK())
	assert.Contains(t, flagsAt(t, a, 8), "lo")
}

// MADV_DONTFORK stays with the mapping, so its new place is missing in a child.
func TestDontForkMovesAlong(t *testing.T) {
	a := kit.NewArena(t, 16)
	a.Anon(t, 0, 2, kit.RW, 0)
	require.Zero(t, kit.Me.Madvise(a.Page(0), kit.Len(2), unix.MADV_DONTFORK))
	require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(2), fixed, a.Page(8)).OK())
	child := kit.Fork(t)
	assert.Equal(t, repeat("SIGSEGV/MAPERR", 2), contents(child, a.Page(8), 2))
}

// A child's copy-on-write pages are its own after parent or child moved theirs.
func TestPagesSharedWithAChildMove(t *testing.T) {
	a := kit.NewArena(t, 32)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 0x10)
	child := kit.Fork(t)
	require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(4), kit.Len(4), fixed, a.Page(8)).OK())
	require.True(t, child.Mremap(a.Page(0), kit.Len(4), kit.Len(4), fixed, a.Page(16)).OK())
	require.False(t, kit.Me.Store(a.Page(8), 0xaa).Faulted())
	require.False(t, child.Store(a.Page(17), 0xbb).Faulted())
	assert.Equal(t, []string{"aa", "11", "12", "13"}, contents(kit.Me, a.Page(8), 4))
	assert.Equal(t, []string{"10", "bb", "12", "13"}, contents(child, a.Page(16), 4))
}

func TestSharedMemoryStaysSharedWithAChild(t *testing.T) {
	a := kit.NewArena(t, 32)
	a.Map(t, 0, 4, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
	child := kit.Fork(t)
	require.True(t, kit.Me.Mremap(a.Page(1), P, P, fixed, a.Page(8)).OK())
	require.False(t, kit.Me.Store(a.Page(8), 0xaa).Faulted())
	assert.Equal(t, []string{"00", "aa", "00", "00"}, contents(child, a.Page(0), 4))
}

func TestGrowthBeyondTheEndOfTheFile(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		for name, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
			t.Run(name, func(t *testing.T) {
				a := kit.NewArena(t, 16)
				fd := d.File(t, 3)
				a.Map(t, 0, 2, kit.RW, flags, fd, 0)
				require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(5), fixed, a.Page(8)).OK())
				assert.Equal(t, []string{"41", "42", "43", "SIGBUS", "SIGBUS"}, contents(kit.Me, a.Page(8), 5))
				require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(4))))
				assert.Equal(t, []string{"41", "42", "43", "00", "SIGBUS"}, contents(kit.Me, a.Page(8), 5))
			})
		}
	})
}

// A file that shrinks takes the pages away at the new place, and only there.
func TestTruncationFindsTheNewPlace(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		for name, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
			t.Run(name, func(t *testing.T) {
				a := kit.NewArena(t, 16)
				fd := d.File(t, 4)
				a.Map(t, 0, 4, kit.RW, flags, fd, 0)
				a.Fill(t, 0, 4, 0x10)
				require.True(t, kit.Me.Mremap(a.Page(1), kit.Len(2), kit.Len(2), fixed, a.Page(8)).OK())
				require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(2))))
				assert.Equal(t, []string{"10", "SIGSEGV/MAPERR", "SIGSEGV/MAPERR", "SIGBUS"}, contents(kit.Me, a.Page(0), 4))
				assert.Equal(t, []string{"11", "SIGBUS"}, contents(kit.Me, a.Page(8), 2))
			})
		}
	})
}

// The bytes of a write to the moved pages of a shared file are the file's.
func TestMovedPagesAreTheFiles(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 16)
		fd := d.File(t, 4)
		a.Map(t, 0, 4, kit.RW, unix.MAP_SHARED, fd, 0)
		require.True(t, kit.Me.Mremap(a.Page(2), P, P, fixed, a.Page(8)).OK())
		require.False(t, kit.Me.Store(a.Page(8), 'x').Faulted())
		got := make([]byte, 1)
		_, err := unix.Pread(fd, got, int64(kit.Len(2)))
		require.NoError(t, err)
		assert.Equal(t, "x", string(got))
		_, err = unix.Pwrite(fd, []byte("y"), int64(kit.Len(2)))
		require.NoError(t, err)
		assert.Equal(t, []string{"79"}, contents(kit.Me, a.Page(8), 1))
	})
}

// A segment is attached until the last of its pages is unmapped, wherever they went.
func TestAttachmentsFollow(t *testing.T) {
	a := kit.NewArena(t, 16)
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4*kit.PageSize, unix.IPC_CREAT|0o600)
	require.NoError(t, err)
	attaches := func() int {
		var ds unix.SysvShmDesc
		_, err := unix.SysvShmCtl(id, unix.IPC_STAT, &ds)
		require.NoError(t, err)
		return int(ds.Nattch)
	}
	t.Cleanup(func() { unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	require.True(t, kit.Me.Call(unix.SYS_SHMAT, uintptr(id), a.Page(0), 0).OK())
	require.Equal(t, 1, attaches())
	require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(4), kit.Len(4), fixed, a.Page(8)).OK())
	assert.Equal(t, 1, attaches(), "moved")
	require.True(t, kit.Me.Mremap(a.Page(9), P, P, fixed, a.Page(0)).OK())
	assert.Equal(t, 3, attaches(), "in three parts")
	require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(16)))
	assert.Equal(t, 0, attaches(), "unmapped")
}

// A futex in shared memory is the same one at a second address.
func TestSharedFutexMovesAlong(t *testing.T) {
	a := kit.NewArena(t, 16)
	a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
	waiter := kit.NewThread(t)
	wait := waiter.Start(unix.SYS_FUTEX, a.Page(1), kit.FutexWait, 0)
	waiter.AwaitBlocked(t)
	require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(2), fixed, a.Page(8)).OK())
	assert.Equal(t, kit.Result{Value: 1}, kit.Me.Futex(a.Page(9), kit.FutexWake, 1))
	assert.True(t, wait().OK())
}
