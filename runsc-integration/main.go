// Program runsc-integration builds runsc with this repository's memory manager in the place of
// gVisor's, and runs containers on it.
//
//	runsc-integration build     stage gVisor with pkg/mm, build build/runsc
//	runsc-integration run       run an OCI bundle, or a command of this machine, under build/runsc
//	runsc-integration install   install what the tests need
//	runsc-integration check     compare programs inside containers with the same programs outside
//
// It uses the standard library only, so that it compiles on a machine whose module cache is empty
// and that has no network, and can then say what is missing. For the same reason the few OCI types it
// needs are its own (package sandbox).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

type command struct {
	name  string
	brief string
	run   func(ctx context.Context, args []string) error
}

var commands = []command{
	{"build", "build runsc with pkg/mm in place (-stock: an unmodified one)", buildCommand},
	{"run", "run a container under build/runsc", runCommand},
	{"install", "install from Debian's packages what the tests need and is missing", installCommand},
	{"check", "run programs in containers and compare them with a run outside", checkCommand},
}

// exitStatus is an error that says nothing and ends the program with a status: a container's own.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	stop()
	var status exitStatus
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, &status):
		os.Exit(int(status))
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "runsc-integration: interrupted; the next run goes on where this one stopped")
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "runsc-integration:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) > 0 {
		for _, c := range commands {
			if c.name == args[0] {
				return c.run(ctx, args[1:])
			}
		}
	}
	fmt.Fprintln(os.Stderr, "usage: runsc-integration COMMAND [flags]; -h after a command lists its flags")
	for _, c := range commands {
		fmt.Fprintf(os.Stderr, "  %-8s %s\n", c.name, c.brief)
	}
	if len(args) > 0 && args[0] != "help" && args[0] != "-h" && args[0] != "--help" {
		return fmt.Errorf("no command %q", args[0])
	}
	return nil
}
