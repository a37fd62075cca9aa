// These tests claim that a process ends, or executes something else, whatever its other threads are doing to its
// memory, and that this is seen by whoever looks on.
package exec

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// What the threads of exec-busy do over and over.
var busy = []struct {
	name string
	once func(area []byte, count int)
}{
	{"mmap", func([]byte, int) {
		if m, err := unix.Mmap(-1, 0, 1<<18, kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE); err == nil {
			unix.Munmap(m)
		}
	}},
	{"replace", func(area []byte, _ int) {
		kit.Me.Mmap(uintptr(unsafe.Pointer(&area[0])), uintptr(len(area)), kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, -1, 0)
	}},
	{"faults", func(area []byte, count int) {
		unix.Madvise(area, unix.MADV_DONTNEED)
		for i := 0; i < len(area); i += kit.PageSize {
			area[i] = byte(count)
		}
	}},
	{"mprotect", func(area []byte, count int) {
		unix.Mprotect(area, kit.RW&^(2*(count&1)))
	}},
	{"fork", func([]byte, int) { exec.Command("/nonexistent/program").Run() }},
	{"maps", func([]byte, int) { os.ReadFile("/proc/self/maps") }},
}

// exec-busy has several threads at work, and in the middle of that ends as it is told.
var _ = kit.Program("exec-busy", func(args []string) {
	var running sync.WaitGroup
	for _, b := range busy {
		if b.name != args[0] {
			continue
		}
		for range 3 {
			area, err := unix.Mmap(-1, 0, 1<<18, kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			running.Add(1)
			go func() {
				runtime.LockOSThread()
				for count := 0; ; count++ {
					b.once(area, count)
					if count == 3 {
						running.Done()
					}
				}
			}()
		}
	}
	running.Wait()
	switch args[1] {
	case "exit":
		os.Exit(7)
	case "exec":
		os.Setenv("KIT_PROGRAM", "exec-report")
		fmt.Println(syscall.Exec("/proc/self/exe", []string{"exec.test", "1000-2000"}, os.Environ()))
	case "kill":
		fmt.Println("ready")
		kit.Pause()
	case "fault":
		unix.Kill(os.Getpid(), unix.SIGSEGV)
		kit.Pause()
	}
})

func TestEndWhileThreadsAreAt(t *testing.T) {
	for _, b := range busy {
		t.Run(b.name, func(t *testing.T) {
			t.Run("exit", func(t *testing.T) {
				err := kit.Command("exec-busy", b.name, "exit").Run()
				var status *exec.ExitError
				require.ErrorAs(t, err, &status)
				assert.Equal(t, 7, status.ExitCode())
			})
			t.Run("exec", func(t *testing.T) {
				assert.Equal(t, "mappings 0\n", kit.Run(t, "exec-busy", b.name, "exec"))
			})
			t.Run("kill", func(t *testing.T) {
				cmd := kit.Command("exec-busy", b.name, "kill")
				out, err := cmd.StdoutPipe()
				require.NoError(t, err)
				require.NoError(t, cmd.Start())
				_, err = out.Read(make([]byte, 6))
				require.NoError(t, err)
				require.NoError(t, cmd.Process.Kill())
				var status *exec.ExitError
				require.ErrorAs(t, cmd.Wait(), &status)
				assert.Equal(t, unix.SIGKILL, status.Sys().(syscall.WaitStatus).Signal())
			})
		})
	}
}

// Someone reads a process's memory and mappings while it ends: he gets them or an error, and the process ends.
func TestEndWhileSomebodyLooksOn(t *testing.T) {
	const pages = 64
	a := kit.NewArena(t, pages)
	a.Anon(t, 0, pages, kit.RW, 0)
	a.Fill(t, 0, pages, 1)
	for range 5 {
		child := kit.Fork(t)
		var stop atomic.Bool
		var ended sync.WaitGroup
		for _, look := range []func(){
			func() { os.ReadFile(child.Proc() + "/maps") },
			func() { os.ReadFile(child.Proc() + "/smaps") },
			func() {
				buffer := make([]byte, kit.PageSize)
				local := []unix.Iovec{{Base: &buffer[0], Len: uint64(len(buffer))}}
				n, err := unix.ProcessVMReadv(child.Pid(), local, []unix.RemoteIovec{{Base: a.Page(3), Len: len(buffer)}}, 0)
				if err == nil && n > 0 {
					assert.Equal(t, byte(4), buffer[0])
				}
			},
		} {
			ended.Go(func() {
				for !stop.Load() {
					look()
				}
			})
		}
		assert.Equal(t, 5, child.Exit(t, 5).ExitStatus())
		stop.Store(true)
		ended.Wait()
	}
	assert.Equal(t, "01 02 03 04", contents(a, kit.Me, 0, 4))
}

func TestManyProgramsOneAfterTheOther(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 1)
	for range 6 {
		e := prepare(t, "exec-report", addresses(a))
		out, status := e.run(t)
		require.Equal(t, "mappings 0\n", out)
		require.Zero(t, status.ExitStatus())
	}
	assert.Equal(t, "01 02 03 04", contents(a, kit.Me, 0, 4))
}
