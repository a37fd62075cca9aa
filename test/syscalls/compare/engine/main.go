// engine runs programs and says what it observes. It is a guest: it runs natively and in a sandbox,
// reads programs from standard input and writes traces to standard output, both as JSON, one value a
// line: for each program, one trace.Step for each of its steps and before them one for its beginning.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

func init() {
	// Workers are forked from this thread, whose thread-local storage is in the program's data.
	// Others have theirs on Go's heap, which workers give up. A worker also ends with its thread.
	runtime.LockOSThread()
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	if err := sameAddresses(); err != nil {
		return err
	}
	debug.SetGCPercent(400)
	z, err := newZygote()
	if err != nil {
		return err
	}
	requests, answers := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	for {
		var text string
		if err := requests.Decode(&text); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a program: %w", err)
		}
		p, err := program.Parse(text)
		if err != nil {
			return err
		}
		if err := z.run(p, answers.Encode); err != nil {
			if err := answers.Encode(trace.Step{Error: err.Error()}); err != nil {
				return err
			}
		}
	}
}

const addrNoRandomize = 0x40000

// sameAddresses starts this program again without randomisation of addresses: the heap must not be where
// a mapping of another run was. A sandbox has no such switch, and need not.
func sameAddresses() error {
	old, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	if e != 0 || old&addrNoRandomize != 0 {
		return nil
	}
	if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, old|addrNoRandomize, 0, 0); e != 0 {
		return nil
	}
	// Whoever did not take it would come here again and again.
	if now, _, _ := unix.RawSyscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0); now&addrNoRandomize == 0 {
		return nil
	}
	return fmt.Errorf("starting again: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}
