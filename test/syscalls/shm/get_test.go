// These tests claim what shmget makes and finds, and whom it refuses.
package shm

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestGet(t *testing.T) {
	for _, c := range []struct {
		name      string
		key, size uintptr
		flags     int
		exists    bool // a segment of two pages with that key
		want      unix.Errno
	}{
		{"private", unix.IPC_PRIVATE, kit.Len(1), 0o600, false, 0},
		{"private without a size", unix.IPC_PRIVATE, 0, 0o600, false, unix.EINVAL},
		{"private of one byte", unix.IPC_PRIVATE, 1, 0o600, false, 0},
		{"private, exclusive", unix.IPC_PRIVATE, 1, unix.IPC_CREAT | unix.IPC_EXCL | 0o600, false, 0},
		{"of the whole address space", unix.IPC_PRIVATE, ^uintptr(0), 0o600, false, unix.EINVAL},
		{"new key", unusedKey, kit.Len(1), unix.IPC_CREAT | 0o600, false, 0},
		{"new key without a size", unusedKey, 0, unix.IPC_CREAT | 0o600, false, unix.EINVAL},
		{"new key, not to be made", unusedKey, kit.Len(1), 0o600, false, unix.ENOENT},
		{"key in use", unusedKey, kit.Len(2), unix.IPC_CREAT | 0o600, true, 0},
		{"key in use, not to be made", unusedKey, kit.Len(2), 0, true, 0},
		{"key in use, smaller", unusedKey, 1, 0, true, 0},
		{"key in use, no size", unusedKey, 0, 0, true, 0},
		{"key in use, larger", unusedKey, kit.Len(2) + 1, 0, true, unix.EINVAL},
		{"key in use, exclusive", unusedKey, kit.Len(2), unix.IPC_CREAT | unix.IPC_EXCL | 0o600, true, unix.EEXIST},
		{"key in use, exclusive alone", unusedKey, kit.Len(2), unix.IPC_EXCL, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var id uintptr
			if c.exists {
				id = segmentOf(t, c.key, kit.Len(2), 0o600)
			}
			r := get(kit.Me, c.key, c.size, c.flags)
			if r.OK() {
				t.Cleanup(func() { remove(kit.Me, r.Value) })
			}
			assert.Equal(t, c.want, r.Errno, kit.ErrnoName(r.Errno))
			if c.exists && r.OK() {
				assert.Equal(t, id, r.Value)
			}
			kit.Say(t, "%s", kit.ErrnoName(r.Errno))
		})
	}
}

func TestPrivateSegmentsAreDifferent(t *testing.T) {
	assert.NotEqual(t, segment(t, 1), segment(t, 1))
}

func TestNewSegmentIsKnown(t *testing.T) {
	id := segmentOf(t, unusedKey, kit.Len(1)+5, 0o640)
	desc := stat(t, id)
	assert.Equal(t, uint64(kit.Len(1)+5), uint64(desc.Segsz), "the size as it was asked for")
	assert.Equal(t, int32(unusedKey), int32(desc.Perm.Key))
	assert.Equal(t, 0o640, int(desc.Perm.Mode))
	assert.Zero(t, desc.Nattch)
	assert.Zero(t, desc.Atime)
	assert.Zero(t, desc.Dtime)
	assert.NotZero(t, desc.Ctime)
	assert.Equal(t, kit.Me.Pid(), int(desc.Cpid))
	assert.Zero(t, desc.Lpid)
	assert.Equal(t, []uint32{0, 0, 0, 0}, []uint32{desc.Perm.Uid, desc.Perm.Gid, desc.Perm.Cuid, desc.Perm.Cgid})
}

func TestSegmentIsZeroAtFirst(t *testing.T) {
	a := kit.NewArena(t, 4)
	mustAttach(t, a, segment(t, 3), 0)
	assert.Equal(t, "00 00 00 SIGSEGV", contents(a, kit.Me, 0, 4))
}

func TestPermissions(t *testing.T) {
	for _, c := range []struct {
		name string
		mode int
		do   func(a *kit.Arena, child *kit.Actor, id uintptr) unix.Errno
		want unix.Errno
	}{
		{"get, 0600", 0o600, func(_ *kit.Arena, c *kit.Actor, _ uintptr) unix.Errno { return get(c, unusedKey, 0, 0o400).Errno }, unix.EACCES},
		{"get, 0604", 0o604, func(_ *kit.Arena, c *kit.Actor, _ uintptr) unix.Errno { return get(c, unusedKey, 0, 0o004).Errno }, 0},
		{"get for writing, 0604", 0o604, func(_ *kit.Arena, c *kit.Actor, _ uintptr) unix.Errno { return get(c, unusedKey, 0, 0o006).Errno }, unix.EACCES},
		{"attach, 0600", 0o600, func(a *kit.Arena, c *kit.Actor, id uintptr) unix.Errno { return attach(c, id, a.Page(0), 0).Errno }, unix.EACCES},
		{"attach, 0604", 0o604, func(a *kit.Arena, c *kit.Actor, id uintptr) unix.Errno { return attach(c, id, a.Page(0), 0).Errno }, unix.EACCES},
		{"attach for reading, 0604", 0o604, func(a *kit.Arena, c *kit.Actor, id uintptr) unix.Errno {
			return attach(c, id, a.Page(0), unix.SHM_RDONLY).Errno
		}, 0},
		{"attach, 0606", 0o606, func(a *kit.Arena, c *kit.Actor, id uintptr) unix.Errno { return attach(c, id, a.Page(0), 0).Errno }, 0},
		{"attach for execution, 0606", 0o606, func(a *kit.Arena, c *kit.Actor, id uintptr) unix.Errno {
			return attach(c, id, a.Page(0), shmExec).Errno
		}, unix.EACCES},
		{"remove, 0606", 0o606, func(_ *kit.Arena, c *kit.Actor, id uintptr) unix.Errno { return remove(c, id) }, unix.EPERM},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			id := segmentOf(t, unusedKey, kit.Len(2), c.mode)
			child := kit.Fork(t)
			require.True(t, child.Call(unix.SYS_SETRESGID, nobody, nobody, nobody).OK())
			require.True(t, child.Call(unix.SYS_SETRESUID, nobody, nobody, nobody).OK())
			got := c.do(a, child, id)
			assert.Equal(t, c.want, got, kit.ErrnoName(got))
			kit.Say(t, "%s", kit.ErrnoName(got))
		})
	}
}

func TestModeCanBeChanged(t *testing.T) {
	id := segment(t, 1)
	desc := stat(t, id)
	desc.Perm.Mode = 0o7444
	desc.Perm.Uid, desc.Perm.Gid = nobody, nobody
	_, err := unix.SysvShmCtl(int(id), unix.IPC_SET, &desc)
	require.NoError(t, err)
	now := stat(t, id)
	assert.Equal(t, 0o444, int(now.Perm.Mode), "only the permissions")
	assert.Equal(t, []uint32{nobody, nobody, 0, 0}, []uint32{now.Perm.Uid, now.Perm.Gid, now.Perm.Cuid, now.Perm.Cgid})
	assert.GreaterOrEqual(t, now.Ctime, desc.Ctime)
}

func TestLockedModeShows(t *testing.T) {
	id := segment(t, 1)
	require.Zero(t, kit.Me.Call(unix.SYS_SHMCTL, id, shmLock, 0).Errno)
	assert.NotZero(t, stat(t, id).Perm.Mode&shmLocked)
	require.Zero(t, kit.Me.Call(unix.SYS_SHMCTL, id, shmUnlock, 0).Errno)
	assert.Zero(t, stat(t, id).Perm.Mode&shmLocked)
}

func TestUnknownCommandOrSegment(t *testing.T) {
	id := segment(t, 1)
	assert.Equal(t, unix.EINVAL, kit.Me.Call(unix.SYS_SHMCTL, id, 99, 0).Errno)
	a := kit.NewArena(t, 1)
	assert.Equal(t, unix.EFAULT, kit.Me.Call(unix.SYS_SHMCTL, id, unix.IPC_STAT, a.Page(0)).Errno)
	require.Zero(t, remove(kit.Me, id))
	assert.Equal(t, unix.EINVAL, remove(kit.Me, id))
	assert.Equal(t, unix.EINVAL, attach(kit.Me, id, 0, 0).Errno)
	assert.Equal(t, unix.EINVAL, attach(kit.Me, ^uintptr(0), 0, 0).Errno)
	assert.True(t, gone(id))
}
