// These tests claim that a program which is executed has nothing of the memory of the process before, that
// others keep theirs, and that a failed execve changes nothing.
package exec

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMappingsAreGone(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, a *kit.Arena)
	}{
		{"anonymous", func(t *testing.T, a *kit.Arena) { a.Anon(t, 0, 4, kit.RW, 0) }},
		{"shared", func(t *testing.T, a *kit.Arena) { a.Map(t, 0, 4, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0) }},
		{"file", func(t *testing.T, a *kit.Arena) { a.Map(t, 0, 4, kit.RW, unix.MAP_SHARED, kit.File(t, 4), 0) }},
		{"private file", func(t *testing.T, a *kit.Arena) { a.Map(t, 0, 4, kit.RW, unix.MAP_PRIVATE, kit.File(t, 4), 0) }},
		{"many", func(t *testing.T, a *kit.Arena) {
			for i := 0; i < a.Pages; i += 2 {
				a.Anon(t, i, 1, kit.RW, 0)
			}
		}},
		{"a large reservation", func(t *testing.T, a *kit.Arena) { a.Anon(t, 0, a.Pages, unix.PROT_NONE, unix.MAP_NORESERVE) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 2000)
			c.make(t, a)
			before := a.Layout(t, kit.Me)
			e := prepare(t, "exec-report", addresses(a))
			out, status := e.run(t)
			assert.Equal(t, "mappings 0\n", out)
			assert.Zero(t, status.ExitStatus())
			assert.Equal(t, before, a.Layout(t, kit.Me), "the parent's are as they were")
		})
	}
}

func TestLockedMemoryIsGone(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	e := prepare(t, "exec-locks")
	require.Zero(t, e.child.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT))
	out, _ := e.run(t)
	assert.Equal(t, "data false, new mapping false\n", out)
}

// exec-locks says whether its data are locked, and a mapping that it makes.
var _ = kit.Program("exec-locks", func([]string) {
	added, err := unix.Mmap(-1, 0, 1<<20, kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		fmt.Println(err)
		return
	}
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("data %t, new mapping %t\n", locked(string(data), unsafe.Pointer(&busy)), locked(string(data), unsafe.Pointer(&added[0])))
})

// locked reports whether the mapping at an address is locked, by the text of smaps.
func locked(smaps string, addr unsafe.Pointer) bool {
	inside := false
	for line := range strings.Lines(smaps) {
		var start, end uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &start, &end); n == 2 {
			inside = start <= uintptr(addr) && uintptr(addr) < end
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return strings.Contains(flags, " lo ")
		}
	}
	return false
}

func TestDescriptorsStayButThoseToBeClosed(t *testing.T) {
	a := kit.NewArena(t, 1)
	fd := kit.Memfd(t, 1, 0)
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	// Numbers that the program does not come to use by itself.
	closed, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 500)
	require.NoError(t, err)
	defer unix.Close(closed)
	open, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 600)
	require.NoError(t, err)
	defer unix.Close(open)
	e := prepare(t, "exec-report", addresses(a), fmt.Sprint(closed), fmt.Sprint(open))
	out, _ := e.run(t)
	assert.Equal(t, "mappings 0\nopen false\nopen true\n", out)
	assert.Equal(t, "41", contents(a, kit.Me, 0, 1))
}

func TestSharedMemoryKeepsWhatWasWrittenBefore(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Map(t, 0, 3, kit.RW, unix.MAP_SHARED, kit.File(t, 3), 0)
	e := prepare(t, "exec-report", addresses(a))
	require.False(t, e.child.Store(a.Page(1), 9).Faulted())
	e.run(t)
	assert.Equal(t, "41 09 43", contents(a, kit.Me, 0, 3))
}

func TestPrivateMemoryOfTheParentStays(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Anon(t, 0, 3, kit.RW, 0)
	a.Fill(t, 0, 3, 1)
	e := prepare(t, "exec-report", addresses(a))
	require.False(t, e.child.Store(a.Page(1), 9).Faulted())
	a.Fill(t, 2, 1, 8)
	e.run(t)
	assert.Equal(t, "01 02 08", contents(a, kit.Me, 0, 3))
}

func TestSegmentsAreDetached(t *testing.T) {
	a := kit.NewArena(t, 4)
	r := kit.Me.Call(unix.SYS_SHMGET, unix.IPC_PRIVATE, kit.Len(2), 0o600)
	require.True(t, r.OK(), r)
	id := r.Value
	t.Cleanup(func() { kit.Me.Call(unix.SYS_SHMCTL, id, unix.IPC_RMID, 0) })
	require.True(t, kit.Me.Call(unix.SYS_SHMAT, id, a.Page(0), 0).OK())
	// It holds the pipe of a second one open, so that what is executed waits at its end.
	e := prepare(t, "exec-wait")
	require.True(t, e.child.Call(unix.SYS_SHMAT, id, a.Page(2), 0).OK())
	assert.Equal(t, 3, attaches(t, id))
	wait := e.start()
	ready := make([]byte, 6)
	_, err := e.output.Read(ready)
	require.NoError(t, err)
	require.Equal(t, "ready\n", string(ready))
	assert.Equal(t, 1, attaches(t, id), "the program runs and has none")
	require.NoError(t, unix.Kill(e.child.Pid(), unix.SIGKILL))
	wait()
	assert.Equal(t, unix.SIGKILL, e.child.Reap(t).Signal())
	assert.Equal(t, 1, attaches(t, id))
}

func attaches(t *testing.T, id uintptr) int {
	t.Helper()
	var desc unix.SysvShmDesc
	_, err := unix.SysvShmCtl(int(id), unix.IPC_STAT, &desc)
	require.NoError(t, err)
	return int(desc.Nattch)
}

var _ = kit.Program("exec-wait", func([]string) {
	fmt.Println("ready")
	kit.Pause()
})

func TestSealIsPossibleWhenTheMappingIsGone(t *testing.T) {
	a := kit.NewArena(t, 1)
	fd := kit.Memfd(t, 1, unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	a.Map(t, 0, 1, kit.RW, unix.MAP_SHARED, fd, 0)
	e := prepare(t, "exec-wait")
	require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(1)))
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	assert.Equal(t, unix.EBUSY, err)
	wait := e.start()
	_, err = e.output.Read(make([]byte, 6))
	require.NoError(t, err)
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	assert.NoError(t, err)
	require.NoError(t, unix.Kill(e.child.Pid(), unix.SIGKILL))
	wait()
	e.child.Reap(t)
}

func TestFailureLeavesMemoryAsItIs(t *testing.T) {
	text := kit.Dirs()[0].NamedFile(t, 1)
	require.NoError(t, os.Chmod(text, 0o755))
	plain := kit.Dirs()[0].NamedFile(t, 1)
	for _, c := range []struct {
		name, path string
		want       unix.Errno
	}{
		{"no such file", "/nonexistent/program", unix.ENOENT},
		{"no program", text, unix.ENOEXEC},
		{"not executable", plain, unix.EACCES},
		{"a folder", "/", unix.EACCES},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 0, 2, kit.RW, unix.MAP_LOCKED)
			a.Map(t, 2, 2, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 2, 0), 0)
			a.Fill(t, 0, 4, 1)
			e := prepareFile(t, c.path, "exec-report")
			require.Zero(t, e.child.Mlock(a.Page(0), kit.Len(2)))
			before := a.Layout(t, e.child)
			r := e.start()()
			assert.Equal(t, c.want, r.Errno, "%v", r)
			assert.Equal(t, before, a.Layout(t, e.child))
			assert.Equal(t, "01 02 03 04", contents(a, e.child, 0, 4))
			assert.Equal(t, "8 kB", a.Smaps(t, e.child)[0]["Locked"])
			kit.Say(t, "%v", r)
		})
	}
	t.Run("arguments that cannot be read", func(t *testing.T) {
		a := kit.NewArena(t, 2)
		a.Anon(t, 0, 1, kit.RW, 0)
		a.Fill(t, 0, 1, 1)
		e := prepare(t, "exec-report")
		for _, args := range []execArgs{{a.Page(1), e.args.argv, e.args.envp}, {e.args.path, a.Page(1), e.args.envp}, {e.args.path, e.args.argv, a.Page(1)}} {
			r := e.child.Call(unix.SYS_EXECVE, args.path, args.argv, args.envp)
			assert.Equal(t, unix.EFAULT, r.Errno)
		}
		assert.Equal(t, "01", contents(a, e.child, 0, 1))
		assert.Equal(t, []string{"p0-p1 rw-p 0"}, a.Layout(t, e.child))
	})
}
