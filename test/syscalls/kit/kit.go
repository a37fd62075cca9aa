// Package kit is what the suites of system calls are written with.
//
// A suite is a package of tests of one subject. It sees what an application sees: system calls by
// number (Actor), loads and stores that may raise signals (Access), /proc. Its claims are Linux's. It
// runs natively, where the machine's kernel is the reference, and then in a sandbox, where the same
// tests have to pass, and to say the same: what a test writes by Say is its transcript, and the
// runner compares transcripts. So a test asserts what must be so, and says what it saw; it says nothing
// that differs from run to run, such as addresses outside of its Arena, inodes or times.
//
// Every suite has
//
//	func TestMain(m *testing.M) { kit.Main(m) }
//
// and tests that do not run in parallel.
//
//	KIT_DIR    a folder for files on a real file system
//	KIT_TMPFS  a folder for files in memory
//	KIT_LONG   if set, tests of endurance run at their full length
package kit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

// RW is the protection that most mappings have.
const RW = 1 | 2 // PROT_READ|PROT_WRITE

// Main prepares the process and runs the tests, or a program that a test asked for with Run. It does
// not return.
func Main(m *testing.M) {
	// Threads that really run side by side, or are at least interrupted anywhere.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 6))
	if err := catchFaults(); err != nil {
		fmt.Fprintln(os.Stderr, "kit:", err)
		os.Exit(2)
	}
	// The collector stops threads, which looks as if a system call had put them to sleep, and maps memory
	// between two looks at it. Tests allocate little, so it stays away but for the longest.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(512 << 20)
	if name := os.Getenv(programVar); name != "" {
		program, known := programs[name]
		if !known {
			fmt.Fprintf(os.Stderr, "kit: no program %q\n", name)
			os.Exit(2)
		}
		program(os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const programVar = "KIT_PROGRAM"

var programs = map[string]func(args []string){}

// Program names a function that Run can start as a process of its own. It is called in init or in a
// variable of the package, before Main.
func Program(name string, run func(args []string)) bool {
	programs[name] = run
	return true
}

// Pause ends with the process only. A Program whose goroutines all sleep is ended by Go, which calls it a
// deadlock; in a system call it may stay.
func Pause() {
	for {
		unix.Poll(nil, -1)
	}
}

// Command is a process that runs a Program, not started yet.
func Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), programVar+"="+name)
	return cmd
}

// Run runs a Program and returns what it wrote. If it fails, so does the test.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("program %s: %v\n%s%s", name, err, out.Bytes(), errs.Bytes())
	}
	return out.String()
}

// Say adds a line to the test's transcript.
func Say(t testing.TB, format string, args ...any) {
	t.Helper()
	fmt.Fprintf(t.Output(), "| %s\n", fmt.Sprintf(format, args...))
}

// Long reports whether tests of endurance run at their full length.
func Long() bool { return os.Getenv("KIT_LONG") != "" }
