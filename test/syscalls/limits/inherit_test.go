// Claims whose limits count: those that a process has now, whoever set them, also after fork and exec.
package limits

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// A limit that is lifted from outside is lifted at once, one that is set counts at once.
func TestLimitsSetFromOutsideCountAtOnce(t *testing.T) {
	s := newSubject(t)
	full := uint64(kit.Len(s.count(t, "VmSize")))
	for round := range 4 {
		s.limit(t, unix.RLIMIT_AS, full)
		require.Equal(t, unix.ENOMEM, s.mmap(8, 1, rw, anon, -1), "round %d", round)
		s.limit(t, unix.RLIMIT_AS, unlimited)
		require.Zero(t, s.mmap(8, 1, rw, anon, -1), "round %d", round)
		require.Zero(t, s.Munmap(s.arena.Page(8), kit.Len(1)))
	}
}

// It is the soft limit that counts.
func TestSoftLimitCounts(t *testing.T) {
	s := newSubject(t)
	full := uint64(kit.Len(s.count(t, "VmSize")))
	require.NoError(t, unix.Prlimit(s.Pid(), unix.RLIMIT_AS, &unix.Rlimit{Cur: full, Max: unlimited}, nil))
	assert.Equal(t, unix.ENOMEM, s.mmap(8, 1, rw, anon, -1))
}

// One process's limits are not another's.
func TestLimitsOfOneProcessOnly(t *testing.T) {
	s := newSubject(t)
	other := kit.Fork(t)
	s.allow(t, unix.RLIMIT_AS, "VmSize", 0)
	s.allow(t, unix.RLIMIT_DATA, "VmData", 0)
	assert.Equal(t, unix.Errno(0), other.Mmap(s.arena.Page(8), kit.Len(8), rw, anon|fixed, -1, 0).Errno)
}

func TestForkedChildInheritsLimits(t *testing.T) {
	for name, c := range map[string]struct {
		resource int
		field    string
	}{"address space": {unix.RLIMIT_AS, "VmSize"}, "data": {unix.RLIMIT_DATA, "VmData"}} {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t)
			s.mustMap(t, 8, 4, rw, anon, -1)
			s.allow(t, c.resource, c.field, 4)
			child := &subject{Actor: s.Fork(t), arena: s.arena}
			assert.Equal(t, s.count(t, c.field), child.count(t, c.field), "it has as much mapped")
			for _, p := range []*subject{s, child} {
				assert.Equal(t, unix.ENOMEM, p.mmap(20, 5, rw, anon, -1))
				assert.Equal(t, unix.Errno(0), p.mmap(20, 4, rw, anon, -1), "each has its own to use up")
			}
		})
	}
}

// Changing the child's limits leaves the parent's alone, and the other way round.
func TestForkedChildHasLimitsOfItsOwn(t *testing.T) {
	s := newSubject(t)
	s.allow(t, unix.RLIMIT_AS, "VmSize", 0)
	child := &subject{Actor: s.Fork(t), arena: s.arena}
	child.limit(t, unix.RLIMIT_AS, unlimited)
	assert.Equal(t, unix.ENOMEM, s.mmap(8, 1, rw, anon, -1))
	assert.Equal(t, unix.Errno(0), child.mmap(8, 1, rw, anon, -1))
}

// The memory that mprotect makes writable in a child counts by the child's limits.
func TestForkedChildsMprotectObeysItsOwnLimits(t *testing.T) {
	s := newSubject(t)
	s.mustMap(t, 8, 4, ro, anon, -1)
	child := &subject{Actor: s.Fork(t), arena: s.arena}
	child.allow(t, unix.RLIMIT_DATA, "VmData", 2)
	assert.Equal(t, unix.Errno(0), s.Mprotect(s.arena.Page(8), kit.Len(4), rw), "the parent has no limit")
	assert.Equal(t, unix.ENOMEM, child.Mprotect(s.arena.Page(8), kit.Len(3), rw))
	assert.Equal(t, unix.Errno(0), child.Mprotect(s.arena.Page(8), kit.Len(2), rw))
}

// The program that runs under limits: it tells what they are, and whether they hold.
var _ = kit.Program("limits-under", func(args []string) {
	for name, resource := range map[string]int{"data": unix.RLIMIT_DATA, "memlock": unix.RLIMIT_MEMLOCK, "stack": unix.RLIMIT_STACK, "as": unix.RLIMIT_AS} {
		var l unix.Rlimit
		if name != args[0] {
			continue
		}
		if err := unix.Getrlimit(resource, &l); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Printf("%s %d %d\n", name, l.Cur, l.Max)
	}
	r := kit.Me.Mmap(0, 8<<30, rw, anon|unix.MAP_NORESERVE, -1, 0)
	fmt.Printf("8 GiB of data: %s\n", kit.ErrnoName(r.Errno))
})

// The program that sets a limit and becomes the other one.
var _ = kit.Program("limits-exec", func(args []string) {
	resource, soft, hard := 0, uint64(0), uint64(0)
	if _, err := fmt.Sscan(strings.Join(args[1:], " "), &resource, &soft, &hard); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: soft, Max: hard}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Setenv("KIT_PROGRAM", "limits-under")
	fmt.Println(syscall.Exec("/proc/self/exe", []string{"limits", args[0]}, os.Environ()))
	os.Exit(1)
})

// exec keeps the limits, and a new program obeys them.
func TestExecKeepsLimits(t *testing.T) {
	for _, c := range []struct {
		name     string
		resource int
		mmap     string
	}{
		{"as", unix.RLIMIT_AS, "ENOMEM"},
		{"data", unix.RLIMIT_DATA, "ENOMEM"},
		{"memlock", unix.RLIMIT_MEMLOCK, "ok"},
		{"stack", unix.RLIMIT_STACK, "ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			soft, hard := uint64(4<<30), uint64(6<<30)
			switch c.name { // of these the hard limit may be low already
			case "stack":
				soft, hard = 1<<20, 2<<20
			case "memlock":
				soft, hard = 16<<10, 32<<10
			}
			out := kit.Run(t, "limits-exec", c.name, fmt.Sprint(c.resource), fmt.Sprint(soft), fmt.Sprint(hard))
			kit.Say(t, "%q", out)
			assert.Equal(t, fmt.Sprintf("%s %d %d\n8 GiB of data: %s\n", c.name, soft, hard, c.mmap), out)
		})
	}
}
