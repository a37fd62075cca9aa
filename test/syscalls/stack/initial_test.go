// Claims what the initial stack of a program is like: one mapping, named, with the program's arguments and
// environment at its top.
package stack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func at(s string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(s))) }

func in(l kit.Line, addr uintptr) bool { return addr >= l.Start && addr < l.End }

var _ = kit.Program("stack-line", func([]string) {
	l := own()
	fmt.Println(l.Perms, l.Offset, l.Device, l.Inode)
	fmt.Println("at most the limit:", l.End-l.Start <= 8*mib)
	fmt.Println("nothing joined to it:", func() bool {
		for _, other := range maps() {
			if other.Name != l.Name && (other.End == l.Start || other.Start == l.End) {
				return false
			}
		}
		return true
	}())
})

func TestLineOfTheStack(t *testing.T) {
	out := limited(t, 8*mib, "stack-line")
	kit.Say(t, "%q", out)
	assert.Equal(t, "rw-p 0 00:00 0\nat most the limit: true\nnothing joined to it: true\n", out)
}

var _ = kit.Program("stack-size", func([]string) {
	l := own()
	fmt.Println("small:", l.End-l.Start <= 512*kib)
})

// The stack begins small and grows when it is used.
func TestStackBeginsSmall(t *testing.T) {
	out := limited(t, 8*mib, "stack-size")
	kit.Say(t, "%q", out)
	assert.Equal(t, "small: true\n", out)
}

var _ = kit.Program("stack-smaps", func([]string) {
	data, err := os.ReadFile("/proc/self/smaps")
	check(err)
	_, rest, _ := strings.Cut(string(data), "[stack]\n")
	for line := range strings.Lines(rest) {
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok {
			fmt.Println("grows down:", strings.Contains(flags, " gd "))
			return
		}
	}
})

func TestStackIsShownToGrowDown(t *testing.T) {
	assert.Equal(t, "grows down: true\n", kit.Run(t, "stack-smaps"))
}

var _ = kit.Program("stack-arguments", func(args []string) {
	l := own()
	inside, together := true, true
	for i, s := range os.Args {
		inside = inside && in(l, at(s)) && in(l, at(s)+uintptr(len(s)))
		if i > 0 {
			last := os.Args[i-1]
			together = together && at(s) == at(last)+uintptr(len(last))+1
		}
	}
	fmt.Println("arguments:", len(args), inside, together)
	// Go's own strings are copies of the environment, so it is looked for where it has to be.
	last := os.Args[len(os.Args)-1]
	want := strings.Join(os.Environ(), "\x00") + "\x00"
	first := at(last) + uintptr(len(last)) + 1
	inside = in(l, first+uintptr(len(want)))
	fmt.Println("environment:", inside && unsafe.String(*(**byte)(unsafe.Pointer(&first)), len(want)) == want)
	kit.Me.Store(at(args[0]), 'X')
	command, err := os.ReadFile("/proc/self/cmdline")
	check(err)
	fmt.Printf("command: %q\n", bytes.Split(command, []byte{0})[1])
})

// Arguments lie one behind the other, then the environment; what is written there is what others see of it.
func TestArgumentsAreOnTheStack(t *testing.T) {
	for name, args := range map[string][]string{"few": {"one", "", "three"}, "many": strings.Fields(strings.Repeat("argument ", 3000))} {
		t.Run(name, func(t *testing.T) {
			out := limited(t, 8*mib, "stack-arguments", args...)
			kit.Say(t, "%q", out)
			want := fmt.Sprintf("arguments: %d true true\nenvironment: true\ncommand: %q\n", len(args), "X"+args[0][1:])
			assert.Equal(t, want, out)
		})
	}
}

var _ = kit.Program("stack-auxv", func([]string) {
	l := own()
	data, err := os.ReadFile("/proc/self/auxv")
	check(err)
	const random, execfn = 25, 31
	for ; len(data) >= 16; data = data[16:] {
		value := uintptr(binary.NativeEndian.Uint64(data[8:]))
		switch binary.NativeEndian.Uint64(data) {
		case random:
			fmt.Println("random bytes:", in(l, value))
		case execfn:
			fmt.Println("file name:", in(l, value))
		}
	}
})

// So do the random bytes and the file name that the auxiliary vector points to.
func TestAuxiliaryVectorPointsToTheStack(t *testing.T) {
	out := kit.Run(t, "stack-auxv")
	assert.Contains(t, out, "random bytes: true\n")
	assert.Contains(t, out, "file name: true\n")
}

var _ = kit.Program("stack-execute", func([]string) {
	l := own()
	page := l.End - kit.Len(8)
	for i, b := range kit.ReturnCode {
		kit.Me.Store(page+uintptr(i), b)
	}
	fmt.Println(show(kit.Me.Exec(page)))
})

// A program that does not ask for it has no executable stack.
func TestStackIsNotExecutable(t *testing.T) {
	assert.Equal(t, "SIGSEGV/ACCERR\n", kit.Run(t, "stack-execute"))
}

var _ = kit.Program("stack-change", func([]string) {
	l := own()
	low := l.End - 100*kib // used by nobody so far up
	page := low &^ (kit.Len(1) - 1)
	kit.Me.Store(page, 7)
	fmt.Println(kit.ErrnoName(kit.Me.Mprotect(page, kit.Len(1), none)), show(kit.Me.Load(page)))
	fmt.Println(kit.ErrnoName(kit.Me.Mprotect(page, kit.Len(1), rw)), kit.Me.Load(page))
	fmt.Println(own().End == l.End)
	fmt.Println(kit.ErrnoName(kit.Me.Madvise(page, kit.Len(1), unix.MADV_DONTNEED)), kit.Me.Load(page))
})

// It is memory like other memory.
func TestStackIsOrdinaryMemory(t *testing.T) {
	out := limited(t, 8*mib, "stack-change")
	kit.Say(t, "%q", out)
	assert.Equal(t, "ok SIGSEGV/ACCERR\nok 0x7\ntrue\nok 0x0\n", out)
}

// The program that starts another with so many arguments of such a length, under a limit of its stack.
var _ = kit.Program("stack-start", func(args []string) {
	var limit, count, length uint64
	_, err := fmt.Sscan(strings.Join(args, " "), &limit, &count, &length)
	check(err)
	check(unix.Setrlimit(unix.RLIMIT_STACK, &unix.Rlimit{Cur: limit, Max: limit}))
	check(os.Setenv("KIT_PROGRAM", "stack-started"))
	list := []string{"stack"}
	for range count {
		list = append(list, strings.Repeat("x", int(length)))
	}
	fmt.Println(syscall.Exec("/proc/self/exe", list, os.Environ()))
})

var _ = kit.Program("stack-started", func(args []string) { fmt.Println("started with", len(args), len(args[0])) })

// Too many arguments for a quarter of the stack are refused, and so is one that is too long.
func TestArgumentsThatDoNotFit(t *testing.T) {
	for name, c := range map[string]struct {
		limit, count, length int
		fits                 bool
	}{
		"fit a quarter":            {mib, 150, 1000, true},
		"do not fit a quarter":     {mib, 300, 1000, false},
		"one of less than 128 KiB": {8 * mib, 1, 127 * kib, true},
		"one of 128 KiB":           {8 * mib, 1, 128 * kib, false},
	} {
		t.Run(name, func(t *testing.T) {
			out := kit.Run(t, "stack-start", fmt.Sprint(c.limit), fmt.Sprint(c.count), fmt.Sprint(c.length))
			kit.Say(t, "%q", out)
			want := "argument list too long\n"
			if c.fits {
				want = fmt.Sprintf("started with %d %d\n", c.count, c.length)
			}
			assert.Equal(t, want, out)
		})
	}
}
