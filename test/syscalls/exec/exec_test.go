// These tests are about execve(2) and the end of processes: what becomes of the memory.
package exec

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// contents is what an actor finds at the first bytes of pages [i, i+n), in one line: in hexadecimal, or the
// name of the signal without its code.
func contents(a *kit.Arena, actor *kit.Actor, i, n int) string {
	found := a.Bytes(actor, i, n)
	for k, c := range found {
		found[k], _, _ = strings.Cut(c, "/")
	}
	return strings.Join(found, " ")
}

// An execution is a forked process that is going to execute a program, and what that writes.
type execution struct {
	child  *kit.Actor
	args   execArgs
	output *os.File
}

// execArgs are addresses of what execve(2) takes, in memory that the process has.
type execArgs struct{ path, argv, envp uintptr }

// prepare forks a process that can execute a kit.Program. What the program writes goes to a pipe.
func prepare(t *testing.T, program string, args ...string) *execution {
	t.Helper()
	return prepareFile(t, "/proc/self/exe", program, args...)
}

func prepareFile(t *testing.T, path, program string, args ...string) *execution {
	t.Helper()
	var ends [2]int
	require.NoError(t, unix.Pipe2(ends[:], unix.O_CLOEXEC))
	writeEnd := ends[1]
	output := os.NewFile(uintptr(ends[0]), "output")
	t.Cleanup(func() { output.Close() })
	memory := block{kit.Shared(t, 16*kit.PageSize), 0}
	e := &execution{output: output, args: execArgs{
		path: memory.text(path),
		argv: memory.list(append([]string{"exec.test"}, args...)),
		envp: memory.list(kit.Command(program).Env),
	}}
	e.child = kit.Fork(t)
	require.NoError(t, unix.Close(writeEnd))
	require.True(t, e.child.Call(unix.SYS_DUP3, uintptr(writeEnd), 1, 0).OK())
	return e
}

// run executes the program, waits for its end, and returns what it wrote.
func (e *execution) run(t *testing.T) (string, unix.WaitStatus) {
	t.Helper()
	wait := e.start()
	text, err := io.ReadAll(e.output)
	require.NoError(t, err)
	r := wait()
	require.Equal(t, unix.ESRCH, r.Errno, "execve: the process should not have answered any more")
	return string(text), e.child.Reap(t)
}

// start begins to execute. The function it returns waits until execve fails or the process ends.
func (e *execution) start() func() kit.Result {
	return e.child.Start(unix.SYS_EXECVE, e.args.path, e.args.argv, e.args.envp)
}

// A block hands out memory that lies outside of Go's heap and stacks, which move and are not there in children.
type block struct {
	memory []byte
	used   int
}

func (b *block) take(n int) []byte {
	piece := b.memory[b.used : b.used+n]
	b.used += (n + 7) &^ 7
	return piece
}

// text is the address of a string with a zero at its end.
func (b *block) text(s string) uintptr {
	piece := b.take(len(s) + 1)
	copy(piece, s)
	return uintptr(unsafe.Pointer(&piece[0]))
}

// list is the address of an array of strings with a null pointer at its end.
func (b *block) list(texts []string) uintptr {
	piece := b.take(8 * (len(texts) + 1))
	for i, s := range texts {
		*(*uintptr)(unsafe.Pointer(&piece[8*i])) = b.text(s)
	}
	return uintptr(unsafe.Pointer(&piece[0]))
}

// exec-report says what it finds in the range of addresses that it is given: mappings, and which descriptors
// are open of those that follow.
var _ = kit.Program("exec-report", func(args []string) {
	var start, end uintptr
	fmt.Sscanf(args[0], "%x-%x", &start, &end)
	data, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		fmt.Println(err)
		return
	}
	lines, err := kit.ParseMaps(data)
	if err != nil {
		fmt.Println(err)
		return
	}
	mapped := slices.DeleteFunc(lines, func(l kit.Line) bool { return l.End <= start || l.Start >= end })
	fmt.Printf("mappings %d\n", len(mapped))
	for _, arg := range args[1:] {
		var fd int
		fmt.Sscan(arg, &fd)
		_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		fmt.Printf("open %t\n", err == nil)
	}
})

// addresses is the arena as exec-report wants it.
func addresses(a *kit.Arena) string { return fmt.Sprintf("%x-%x", a.Base, a.End()) }
