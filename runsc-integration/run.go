package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"sentrymm/runsc-integration/sandbox"
)

const (
	defaultPlatform = "systrap"

	// How long a platform may take to come up. It takes a quarter of a second where it works.
	startLimit = 30 * time.Second

	// What to do where a platform does not work.
	platformAdvice = "if it is the platform, choose another with PLATFORM= (systrap works wherever seccomp does)"
)

func runCommand(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "usage: runsc-integration run [flags] [COMMAND [ARG...]]\n"+
			"Without a command: a container with this repository's guest program. With one: that command of\n"+
			"this machine, in this folder; what it writes is gone afterwards.\n")
		flags.PrintDefaults()
	}
	platform := flags.String("platform", defaultPlatform, "how the sentry runs application code: systrap, ptrace or kvm")
	limit := flags.Duration("start-limit", startLimit, "how long the platform may take to come up")
	runsc := flags.String("runsc", "", "run this program, not build/runsc; it is not built first")
	if err := flags.Parse(args); err != nil {
		return quiet(err)
	}
	if err := checkOS(runtime.GOOS); err != nil {
		return err
	}
	if err := checkArch(runtime.GOARCH); err != nil {
		return err
	}
	if err := checkRoot(os.Geteuid()); err != nil {
		return err
	}
	p, err := findProject(ctx)
	if err != nil {
		return err
	}
	if *runsc == "" {
		if *runsc, err = p.buildRunsc(ctx, target{}); err != nil {
			return err
		}
	}
	if err := p.buildGuest(ctx); err != nil {
		return err
	}
	s, err := sandbox.New(*runsc, *platform)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if note := s.Note(); note != "" {
		fmt.Fprintln(os.Stderr, note)
	}
	if err := s.ComeUp(ctx, p.guestRoot(), *limit); err != nil {
		return fmt.Errorf("%w\n%s", err, platformAdvice)
	}
	b := sandbox.Program(p.guestRoot(), "guest", "replace", "-mremap")
	if flags.NArg() > 0 {
		if b, err = commandBundle(flags.Args()); err != nil {
			return err
		}
	}
	return runAttached(s, b)
}

// guestRoot is the root file system with nothing but the guest program.
func (p *project) guestRoot() string { return p.build("rootfs") }

func (p *project) buildGuest(ctx context.Context) error {
	return p.buildStatic(ctx, filepath.Join(p.guestRoot(), "guest"), "./runsc-integration/guest")
}

// commandBundle is a container for a command as the shell that called us would have started it.
func commandBundle(args []string) (sandbox.Bundle, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return sandbox.Bundle{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return sandbox.Bundle{}, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return sandbox.Bundle{}, err
	}
	b := sandbox.Machine(dir, append([]string{path}, args[1:]...)...)
	b.Terminal = isTerminal(os.Stdin) && isTerminal(os.Stdout)
	return b, nil
}

// runAttached runs a container on our own standard input and output and ends as it ends.
func runAttached(s *sandbox.Sandbox, b sandbox.Bundle) error {
	c, err := s.NewContainer(b)
	if err != nil {
		return err
	}
	// An interrupt from the terminal reaches runsc as well, which passes it on; what to do about it is
	// the container's decision. Being terminated is not.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	status, err := c.Run(ctx, os.Stdin, inherited(os.Stdout), inherited(os.Stderr))
	if err != nil {
		return err
	}
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}

// inherited is a file for a container to write to. A regular file goes through a pipe: the sandbox would
// write at offsets of its own, over what others write to the same file.
func inherited(f *os.File) io.Writer {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		return struct{ io.Writer }{f}
	}
	return f
}

func isTerminal(f *os.File) bool {
	var settings syscall.Termios
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&settings)))
	return errno == 0
}
