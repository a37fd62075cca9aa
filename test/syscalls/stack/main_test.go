// What Linux promises of stacks: the initial one of a program, those of threads, and those of signal handlers.
// This file holds what the other files of the suite share.
package stack

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	anon  = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	fixed = unix.MAP_FIXED
	none  = unix.PROT_NONE
	rw    = kit.RW

	kib = 1 << 10
	mib = 1 << 20

	// guardPages is the room between a stack and what is below it (Linux: stack_guard_gap).
	guardPages = 256
)

// The program that sets RLIMIT_STACK and becomes another: its arguments are the limit, the name, and that
// program's own. The stack of a program is laid out when it is started, with the limit of then.
var _ = kit.Program("stack-limited", func(args []string) {
	soft, err := strconv.ParseUint(args[0], 10, 64)
	check(err)
	var limit unix.Rlimit
	check(unix.Getrlimit(unix.RLIMIT_STACK, &limit))
	limit.Cur = min(soft, limit.Max)
	check(unix.Setrlimit(unix.RLIMIT_STACK, &limit))
	check(os.Setenv("KIT_PROGRAM", args[1]))
	check(syscall.Exec("/proc/self/exe", append([]string{"stack"}, args[2:]...), os.Environ()))
})

// limited runs a program under a limit of its stack, and returns what it says.
func limited(t testing.TB, limit uint64, name string, args ...string) string {
	t.Helper()
	return kit.Run(t, "stack-limited", append([]string{fmt.Sprint(limit), name}, args...)...)
}

// check ends a program that cannot go on.
func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// own is the line of the program's own initial stack. There is one.
func own() kit.Line {
	var found []kit.Line
	for _, l := range maps() {
		if l.Name == "[stack]" {
			found = append(found, l)
		}
	}
	if len(found) != 1 {
		check(fmt.Errorf("%d lines of maps are the stack", len(found)))
	}
	return found[0]
}

func maps() []kit.Line {
	data, err := os.ReadFile("/proc/self/maps")
	check(err)
	lines, err := kit.ParseMaps(data)
	check(err)
	return lines
}

// show is an access without its address, which differs from run to run.
func show(access kit.Access) string {
	if access.Faulted() {
		return access.SignalName()
	}
	return "ok"
}
