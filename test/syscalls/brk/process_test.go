// Claims whose heap it is: each process's own after fork, a new one after exec, one for all threads, counted
// and limited.
package brk

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestForkedChildHasTheSameHeap(t *testing.T) {
	h := newHeap(t)
	h.to(3, 5)
	h.fill(t, 0, 4)
	child := &heap{h.Fork(t), h.pages}
	assert.Equal(t, "p3+0x5", child.show(child.Brk(0)))
	assert.Equal(t, h.layout(t), child.layout(t))
	kit.Say(t, "%v", child.pages.Bytes(child.Actor, 0, 4))
	assert.Equal(t, []string{"01", "02", "03", "04"}, child.pages.Bytes(child.Actor, 0, 4))
}

func TestForkedHeapsAreIndependent(t *testing.T) {
	h := newHeap(t)
	h.to(4, 0)
	h.fill(t, 0, 4)
	child := &heap{h.Fork(t), h.pages}
	child.Store(h.pages.Page(0), 0xc0)
	h.Store(h.pages.Page(1), 0xa1)
	assert.Equal(t, "p6", child.to(6, 0))
	assert.Equal(t, "p2", h.to(2, 0))
	kit.Say(t, "parent %v child %v", h.pages.Bytes(h.Actor, 0, 6), h.pages.Bytes(child.Actor, 0, 6))
	assert.Equal(t, []string{"01", "a1", gone, gone, gone, gone}, h.pages.Bytes(h.Actor, 0, 6))
	assert.Equal(t, []string{"c0", "02", "03", "04", "00", "00"}, h.pages.Bytes(child.Actor, 0, 6))
	assert.Equal(t, "p2", h.show(h.Brk(0)))
}

// Growth counts as data and as address space; a refused call does not.
func TestHeapIsCounted(t *testing.T) {
	h := newHeap(t)
	sizes := func() [2]string { return [2]string{kit.Status(t, h.Actor, "VmSize"), kit.Status(t, h.Actor, "VmData")} }
	before := sizes()
	h.to(8, 1)
	grown := sizes()
	for i := range before {
		var b, g int
		fmt.Sscan(before[i], &b)
		fmt.Sscan(grown[i], &g)
		kit.Say(t, "%+d kB", g-b)
		assert.Equal(t, 9*kit.PageSize/1024, g-b)
	}
	h.Brk(1 << 62)
	assert.Equal(t, grown, sizes())
	h.to(0, 0)
	assert.Equal(t, before, sizes())
}

// The data limit holds for all private memory that can be written, the heap with it.
func TestDataLimit(t *testing.T) {
	h := newHeap(t)
	h.to(2, 0)
	var kb int
	_, err := fmt.Sscan(kit.Status(t, h.Actor, "VmData"), &kb)
	require.NoError(t, err)
	var l unix.Rlimit
	require.NoError(t, unix.Prlimit(h.Pid(), unix.RLIMIT_DATA, nil, &l))
	l.Cur = uint64(kb)<<10 + uint64(kit.Len(3))
	require.NoError(t, unix.Prlimit(h.Pid(), unix.RLIMIT_DATA, &l, nil))
	more, exactly := h.to(5, 1), h.to(5, 0)
	kit.Say(t, "%s, %s", more, exactly)
	assert.Equal(t, "p2", more)
	assert.Equal(t, "p5", exactly)
	assert.Equal(t, "p1", h.to(1, 0))
	assert.Equal(t, "p5", h.to(5, 0), "what was given back may be had again")
}

// All threads of a process have one heap.
var _ = kit.Program("brk-threads", func([]string) {
	start := kit.Me.Brk(0)
	const threads, rounds = 4, 200
	var group sync.WaitGroup
	// Each moves the break up and down between places of its own; one page stays all the time.
	if kit.Me.Brk(start+kit.Len(1)) != start+kit.Len(1) {
		fmt.Println("the heap does not grow")
		os.Exit(1)
	}
	kit.Me.Store(start, 7)
	failed := make(chan string, threads)
	for i := range threads {
		group.Go(func() {
			runtime.LockOSThread()
			for k := range rounds {
				target := start + kit.Len(1+(i+k)%5)
				if got := kit.Me.Brk(target); got != target {
					failed <- fmt.Sprintf("the break is %#x and not %#x", got-start, target-start)
					return
				}
				if access := kit.Me.Load(start); access.Value != 7 {
					failed <- "the first page: " + access.String()
					return
				}
			}
		})
	}
	group.Wait()
	select {
	case text := <-failed:
		fmt.Println(text)
	default:
		end := kit.Me.Brk(start + kit.Len(2))
		fmt.Println("ends at", (end-start)/uintptr(kit.PageSize), kit.Me.Load(start+kit.Len(1)).Faulted(), kit.Me.Load(start+kit.Len(2)).SignalName())
	}
})

func TestThreadsShareTheHeap(t *testing.T) {
	out := kit.Run(t, "brk-threads")
	kit.Say(t, "%q", out)
	assert.Equal(t, "ends at 2 false SIGSEGV/MAPERR\n", out)
}
