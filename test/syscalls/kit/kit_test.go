// These tests claim that kit sees what happens, and that a test which is wrong about Linux fails.
package kit

import (
	"os"
	"os/signal"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

func TestAccessReportsSignalCodeAndAddress(t *testing.T) {
	a := NewArena(t, 8)
	a.Anon(t, 0, 1, unix.PROT_NONE, 0)
	a.Anon(t, 1, 1, unix.PROT_READ, 0)
	a.Anon(t, 2, 1, RW, 0)
	a.Map(t, 3, 2, unix.PROT_READ, unix.MAP_SHARED, Memfd(t, 1, 0), 0)
	for _, actor := range map[string]*Actor{"me": Me, "thread": NewThread(t), "child": Fork(t)} {
		assert.Equal(t, "SIGSEGV/ACCERR at p0+0x8", a.Describe(actor.Load(a.Page(0)+8)))
		assert.Equal(t, "0x0", a.Describe(actor.Load(a.Page(1))))
		assert.Equal(t, "SIGSEGV/ACCERR at p1+0x10", a.Describe(actor.Store64(a.Page(1)+16, 1)))
		assert.False(t, actor.Store(a.Page(2), 7).Faulted())
		assert.Equal(t, "0x7", a.Describe(actor.Load(a.Page(2))))
		assert.Equal(t, "SIGSEGV/ACCERR at p2", a.Describe(actor.Exec(a.Page(2))))
		assert.Equal(t, "0x4141414141414141", a.Describe(actor.Load64(a.Page(3))))
		assert.Equal(t, "SIGBUS/ADRERR at p4+0x1", a.Describe(actor.Load(a.Page(4)+1)))
		assert.Equal(t, "SIGSEGV/MAPERR at p5", a.Describe(actor.Load(a.Page(5))))
		assert.Equal(t, "SIGSEGV/MAPERR at p5", a.Describe(actor.Exec(a.Page(5))))
		assert.Equal(t, "SIGSEGV/KERNEL", actor.Load(1<<63).SignalName())
	}
}

func TestExecReturns(t *testing.T) {
	a := NewArena(t, 1)
	a.Anon(t, 0, 1, RW, 0)
	copy(a.Memory(0, 1), ReturnCode)
	require.Zero(t, Me.Mprotect(a.Page(0), Len(1), unix.PROT_READ|unix.PROT_EXEC))
	assert.False(t, Me.Exec(a.Page(0)).Faulted())
}

func TestOtherFaultsAreGos(t *testing.T) {
	defer func() {
		err, ok := recover().(runtime.Error)
		require.True(t, ok)
		assert.Contains(t, err.Error(), "nil pointer")
	}()
	var p *int
	*p = 1
}

func TestForkedProcessHasItsOwnMemory(t *testing.T) {
	a := NewArena(t, 2)
	a.Anon(t, 0, 2, RW, 0)
	a.Fill(t, 0, 2, 1)
	child := Fork(t)
	assert.False(t, child.Store(a.Page(0), 9).Faulted())
	grandchild := child.Fork(t)
	assert.False(t, grandchild.Store(a.Page(1), 8).Faulted())
	assert.Equal(t, []string{"01", "02"}, a.Bytes(Me, 0, 2))
	assert.Equal(t, []string{"09", "02"}, a.Bytes(child, 0, 2))
	assert.Equal(t, []string{"09", "08"}, a.Bytes(grandchild, 0, 2))
	require.Zero(t, child.Munmap(a.Page(0), Len(1)))
	assert.Equal(t, []string{"p1-p2 rw-p 0"}, a.Layout(t, child))
	assert.Equal(t, []string{"p0-p2 rw-p 0"}, a.Layout(t, Me))
	assert.Equal(t, 3, child.Exit(t, 3).ExitStatus())
}

func TestStepThatKillsAProcessIsSeen(t *testing.T) {
	child := Fork(t)
	r := child.Call(unix.SYS_KILL, uintptr(child.Pid()), uintptr(unix.SIGKILL))
	assert.Equal(t, unix.ESRCH, r.Errno)
	assert.Equal(t, unix.SIGKILL, child.Reap(t).Signal())
}

func TestBlockedCallCanBeAwaited(t *testing.T) {
	for name, actor := range map[string]*Actor{"thread": NewThread(t), "child": Fork(t)} {
		r, w := Pipe(t)
		buffer := Shared(t, PageSize)
		if actor.child != nil {
			actor = Fork(t) // one that has the pipe and the buffer
		}
		wait := actor.Start(unix.SYS_READ, uintptr(r), uintptr(unsafe.Pointer(&buffer[0])), 1)
		actor.AwaitBlocked(t)
		_, err := unix.Write(w, []byte{5})
		require.NoError(t, err)
		assert.Equal(t, Result{Value: 1}, wait(), name)
		assert.Equal(t, byte(5), buffer[0])
	}
}

// A thread of Go's runtime gets signals when that likes.
func TestSignalsOfTheRuntimeInterruptNothing(t *testing.T) {
	handled := make(chan os.Signal, 1)
	signal.Notify(handled, unix.SIGUSR1)
	defer signal.Stop(handled)
	thread := NewThread(t)
	r, w := Pipe(t)
	// Not on the stack, which may move before the second call.
	file := (*unix.PollFd)(unsafe.Pointer(unsafe.SliceData(Shared(t, PageSize))))
	*file = unix.PollFd{Fd: int32(r), Events: unix.POLLIN}
	wait := thread.Start(unix.SYS_POLL, uintptr(unsafe.Pointer(file)), 1, ^uintptr(0))
	thread.AwaitBlocked(t)
	require.NoError(t, unix.Tgkill(os.Getpid(), thread.tid, unix.SIGUSR1)) // poll is never restarted
	<-handled
	thread.AwaitBlocked(t)
	_, err := unix.Write(w, []byte{5})
	require.NoError(t, err)
	assert.Equal(t, Result{Value: 1}, wait())
}

func TestMapsWithSpacesInNames(t *testing.T) {
	lines, err := ParseMaps([]byte("10000-12000 r-xs 00003000 fd:01 77                         /a b (deleted)\n12000-13000 rw-p 00000000 00:00 0 \n"))
	require.NoError(t, err)
	assert.Equal(t, []Line{
		{0x10000, 0x12000, "r-xs", 0x3000, "fd:01", 77, "/a b (deleted)"},
		{0x12000, 0x13000, "rw-p", 0, "00:00", 0, ""},
	}, lines)
	_, err = ParseMaps([]byte("10000 r-xs\n"))
	require.Error(t, err)
}

func TestSmapsAndStatus(t *testing.T) {
	a := NewArena(t, 3)
	a.Anon(t, 1, 2, RW, 0)
	a.Fill(t, 1, 1, 1)
	assert.Equal(t, "8 kB", a.Smaps(t, Me)[1]["Size"])
	assert.Equal(t, "4 kB", a.Smaps(t, Me)[1]["Rss"])
	assert.Equal(t, "0 kB", Status(t, Me, "VmLck"))
}

var _ = Program("kit-echo", func(args []string) { println(len(args)) })

func TestPrograms(t *testing.T) {
	require.NoError(t, Command("kit-echo", "a", "b").Run())
	require.Error(t, Command("kit-unknown").Run())
	assert.Equal(t, "", Run(t, "kit-echo", "a"))
}
