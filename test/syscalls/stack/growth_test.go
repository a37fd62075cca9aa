// Claims that the initial stack grows when it is used: down to RLIMIT_STACK, at once, and not near other mappings.
package stack

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// The program that touches its stack: each argument is what to do and how many bytes below the end of the stack.
var _ = kit.Program("stack-touch", func(args []string) {
	runtime.LockOSThread()
	end := own().End
	for _, arg := range args {
		op, number, _ := strings.Cut(arg, ":")
		var bytes uintptr
		if _, err := fmt.Sscan(number, &bytes); err != nil {
			check(fmt.Errorf("%s: %w", arg, err))
		}
		fmt.Println(touch(op, end-bytes, bytes))
	}
})

func touch(op string, addr, bytes uintptr) string {
	switch op {
	case "load":
		return show(kit.Me.Load(addr))
	case "store":
		return show(kit.Me.Store(addr, 1))
	case "read": // from a file into the stack
		f, err := os.Open("/dev/zero")
		check(err)
		defer f.Close()
		return kit.ErrnoName(kit.Me.Read(int(f.Fd()), addr, 1).Errno)
	case "begins": // whether the stack does so there
		return fmt.Sprint(own().Start == addr)
	case "map":
		return kit.ErrnoName(kit.Me.Mmap(addr, kit.Len(1), rw, anon|unix.MAP_FIXED_NOREPLACE, -1, 0).Errno)
	case "reserve":
		return kit.ErrnoName(kit.Me.Mmap(addr, kit.Len(1), none, anon|unix.MAP_FIXED_NOREPLACE, -1, 0).Errno)
	case "limit":
		var limit unix.Rlimit
		check(unix.Getrlimit(unix.RLIMIT_STACK, &limit))
		limit.Cur = uint64(bytes)
		check(unix.Setrlimit(unix.RLIMIT_STACK, &limit))
		return "ok"
	}
	check(fmt.Errorf("no operation %q", op))
	return ""
}

func TestGrowth(t *testing.T) {
	page := kit.PageSize
	step := func(op string, bytes int) string { return fmt.Sprintf("%s:%d", op, bytes) }
	for name, c := range map[string]struct {
		limit int
		steps []string
		want  string // of each step
	}{
		"by a store":                 {8 * mib, []string{step("store", 3*mib), step("load", 2*mib), step("begins", 3*mib)}, "ok ok true"},
		"by a load":                  {8 * mib, []string{step("load", 3*mib), step("begins", 3*mib)}, "ok true"},
		"by a system call":           {8 * mib, []string{step("read", 3*mib), step("begins", 3*mib)}, "ok true"},
		"to the limit":               {2 * mib, []string{step("store", 2*mib), step("begins", 2*mib)}, "ok true"},
		"no further":                 {2 * mib, []string{step("store", 2*mib+1), step("store", 2*mib+page), step("store", 2*mib)}, "SIGSEGV/MAPERR SIGSEGV/MAPERR ok"},
		"no further by a call":       {2 * mib, []string{step("read", 2*mib+1), step("read", 2*mib)}, "EFAULT ok"},
		"under a small limit":        {256 * kib, []string{step("store", 256*kib+1), step("store", 256*kib)}, "SIGSEGV/MAPERR ok"},
		"under a large limit":        {64 * mib, []string{step("store", 64*mib), step("store", 64*mib+1)}, "ok SIGSEGV/MAPERR"},
		"after the limit is lowered": {8 * mib, []string{step("limit", mib), step("store", 2*mib), step("store", mib)}, "ok SIGSEGV/MAPERR ok"},
		"what has grown stays":       {8 * mib, []string{step("store", 4*mib), step("limit", mib), step("store", 4*mib), step("store", 4*mib+page)}, "ok ok ok SIGSEGV/MAPERR"},
		"after the limit is raised":  {mib, []string{step("store", 2*mib), step("limit", 4*mib), step("store", 2*mib)}, "SIGSEGV/MAPERR ok ok"},
		"up to the guard gap":        {8 * mib, []string{step("map", 4*mib), step("store", 4*mib-guardPages*page-page)}, "ok ok"},
		"not into the guard gap":     {8 * mib, []string{step("map", 4*mib), step("store", 4*mib-guardPages*page), step("store", 4*mib-2*page)}, "ok SIGSEGV/MAPERR SIGSEGV/MAPERR"},
		"no gap above a reserve":     {8 * mib, []string{step("reserve", 4*mib), step("store", 4*mib-page), step("store", 4*mib)}, "ok ok SIGSEGV/ACCERR"},
		"not below another":          {8 * mib, []string{step("map", 4*mib), step("store", 5*mib), step("store", 4*mib)}, "ok SIGSEGV/MAPERR ok"},
	} {
		t.Run(name, func(t *testing.T) {
			out := limited(t, uint64(c.limit), "stack-touch", c.steps...)
			got := strings.Join(strings.Fields(out), " ")
			kit.Say(t, "%s", got)
			assert.Equal(t, c.want, got)
		})
	}
}

// Without a limit the stack grows beyond what is usual.
func TestStackWithoutALimit(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &limit); err != nil || limit.Max != unix.RLIM_INFINITY {
		t.Skip("the hard limit of the stack cannot be raised")
	}
	out := limited(t, unix.RLIM_INFINITY, "stack-touch", fmt.Sprintf("store:%d", 32*mib))
	kit.Say(t, "%q", out)
	assert.Equal(t, "ok\n", out)
}

// The kernel keeps what it places itself out of the room that the stack may grow into.
var _ = kit.Program("stack-neighbours", func([]string) {
	end := own().End
	for range 400 {
		r := kit.Me.Mmap(0, 64*kib, none, anon|unix.MAP_NORESERVE, -1, 0)
		if !r.OK() || r.Value < end && r.Value+64*kib > end-16*mib {
			fmt.Println("a mapping in the stack's room")
			return
		}
	}
	fmt.Println(show(kit.Me.Store(end-16*mib, 1)))
})

func TestMappingsKeepOutOfTheStacksRoom(t *testing.T) {
	out := limited(t, 16*mib, "stack-neighbours")
	kit.Say(t, "%q", out)
	assert.Equal(t, "ok\n", out)
}

// A forked child's stack is a copy that grows by itself.
func TestForkedStack(t *testing.T) {
	child := kit.Fork(t)
	end := own().End
	before := own().Start
	at := end - 2*mib
	assert.False(t, child.Store(at, 7).Faulted())
	assert.Equal(t, uint64(7), child.Load(at).Value)
	assert.Equal(t, before, own().Start, "the parent's has not grown")
	assert.Equal(t, uint64(0), kit.Me.Load(at).Value)
}
