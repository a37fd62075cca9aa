package traps

import (
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What munmap gives up is given up when it returns, not some time later.

func TestUmountAfterMunmap(t *testing.T) {
	needRoot(t)
	dir := mountTmpfs(t)
	area := low(2)
	for range 20 {
		name := filepath.Join(dir, "mapped")
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		require.NoError(t, err)
		require.NoError(t, unix.Ftruncate(fd, int64(len(area))))
		shared(t, area, fd, 0)
		require.NoError(t, unix.Close(fd))
		require.True(t, store(&area[0], 1))

		require.ErrorIs(t, unix.Unmount(dir, 0), unix.EBUSY, "unmounted under a mapped file")
		require.NoError(t, unmap(area))
		require.NoError(t, unix.Unmount(dir, 0), "after munmap")
		require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	}
}

// mountTmpfs mounts an empty file system for a test.
func mountTmpfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// A file lock lasts as long as the open file it was taken through. Here the mapping is all that keeps
// that open.
func TestFlockReleasedByMunmap(t *testing.T) {
	eachDir(t, func(t *testing.T, dir string) {
		name := filepath.Join(dir, "locked")
		second := create(t, name, 2)
		area := low(2)
		release := map[string]func(){
			"munmap":   func() { require.NoError(t, unmap(area)) },
			"replaced": func() { anon(t, area, 0) },
		}
		for how, release := range release {
			first, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
			require.NoError(t, err)
			require.NoError(t, unix.Flock(first, unix.LOCK_EX|unix.LOCK_NB))
			shared(t, area, first, 0)
			require.NoError(t, unix.Close(first))
			require.ErrorIs(t, unix.Flock(second, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK, "the mapping keeps the lock")
			// Splitting the mapping and giving up a half of it keeps the file open.
			require.NoError(t, unmap(area[:pageSize]))
			require.ErrorIs(t, unix.Flock(second, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK, "half of the mapping keeps the lock")
			release()
			require.NoError(t, unix.Flock(second, unix.LOCK_EX|unix.LOCK_NB), how)
			require.NoError(t, unix.Flock(second, unix.LOCK_UN))
		}
	})
}

const (
	segmentPages = 4
	shmRemap     = 0o40000 // SHM_REMAP
)

func segment(t *testing.T) int {
	t.Helper()
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, segmentPages*pageSize, unix.IPC_CREAT|0o600)
	require.NoError(t, err)
	t.Cleanup(func() { unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	return id
}

// attach attaches a segment at area, over whatever is there.
func attach(t *testing.T, id int, area []byte) {
	t.Helper()
	at, _, errno := unix.Syscall(unix.SYS_SHMAT, uintptr(id), uintptr(unsafe.Pointer(&area[0])), shmRemap)
	require.Zero(t, errno)
	require.Equal(t, start(area), at)
	t.Cleanup(func() { unmap(area) })
}

func detach(area []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_SHMDT, uintptr(unsafe.Pointer(&area[0])), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func describe(t *testing.T, id int) unix.SysvShmDesc {
	t.Helper()
	var d unix.SysvShmDesc
	_, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d)
	require.NoError(t, err)
	return d
}

func TestAttachCountAfterShmdt(t *testing.T) {
	id := segment(t)
	both := low(2 * segmentPages)
	first, second := both[:segmentPages*pageSize], both[segmentPages*pageSize:]
	for range 50 {
		attach(t, id, first)
		attach(t, id, second)
		require.True(t, store(&first[0], 's'))
		require.EqualValues(t, 2, describe(t, id).Nattch, "attached twice")
		require.NoError(t, detach(first))
		require.EqualValues(t, 1, describe(t, id).Nattch, "after shmdt")
		require.NoError(t, unmap(second))
		require.EqualValues(t, 0, describe(t, id).Nattch, "after munmap")

		attach(t, id, first)
		anon(t, first, 0)
		require.EqualValues(t, 0, describe(t, id).Nattch, "after the mapping was replaced")
		require.NoError(t, unmap(first))
	}
}

func TestShmRemapUpdatesTimes(t *testing.T) {
	old, replacing := segment(t), segment(t)
	both := low(2 * segmentPages)
	area, elsewhere := both[:segmentPages*pageSize], both[segmentPages*pageSize:]

	attach(t, old, area)
	require.Zero(t, describe(t, old).Dtime)
	attach(t, replacing, area)
	require.EqualValues(t, 0, describe(t, old).Nattch, "the replaced segment")
	require.NotZero(t, describe(t, old).Dtime, "the replaced segment was detached")
	require.EqualValues(t, 1, describe(t, replacing).Nattch, "the new segment")
	require.NotZero(t, describe(t, replacing).Atime, "the new segment was attached")
	require.Zero(t, describe(t, replacing).Dtime, "the new segment was never detached")

	// Moving an attached segment attaches it in the new place and detaches it in the old one.
	require.NoError(t, moveTo(elsewhere, area))
	require.EqualValues(t, 1, describe(t, replacing).Nattch, "the moved segment")
	require.NotZero(t, describe(t, replacing).Dtime, "moved away is detached")
	require.NoError(t, detach(elsewhere))
	require.EqualValues(t, 0, describe(t, replacing).Nattch)
}

// A segment that is marked for removal goes with its last attachment.
func TestShmGoesWithReplacedAttachment(t *testing.T) {
	id := segment(t)
	area := low(segmentPages)
	attach(t, id, area)
	_, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, describe(t, id).Nattch)
	anon(t, area, 0)
	_, err = unix.SysvShmCtl(id, unix.IPC_STAT, new(unix.SysvShmDesc))
	require.ErrorIs(t, err, unix.EINVAL, "no such segment")
}
