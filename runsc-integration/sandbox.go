package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A sandbox is a way to run containers: one runsc on one platform.
type sandbox struct {
	runsc    string
	platform string
	flags    []string // of runsc, for every container
	note     string   // what had to be done without, or empty
	folder   string   // bundles and runsc's own state
	next     int
}

// newSandbox prepares runsc to run containers with what this machine allows. Its folder has a short
// path because runsc makes sockets in it. more are flags of runsc; the last of two that differ counts.
// The caller closes the sandbox.
func newSandbox(runsc, platform string, more ...string) (*sandbox, error) {
	return newSandboxAt(cgroupRoot, runsc, platform, more...)
}

// newSandboxAt is newSandbox for a machine whose cgroups are mounted at cgroups.
func newSandboxAt(cgroups, runsc, platform string, more ...string) (*sandbox, error) {
	folder, err := os.MkdirTemp("", "sentrymm-")
	if err != nil {
		return nil, noSpace(err, os.TempDir())
	}
	s := &sandbox{runsc: runsc, platform: platform, folder: folder}
	s.flags = []string{
		"--root=" + s.state(),
		"--platform=" + platform,
		// A plain machine has no bridge to put a container on. Loopback stays.
		"--network=none",
		// What a container writes to its root stays in its memory.
		"--overlay2=root:memory",
	}
	s.flags = append(s.flags, more...)
	if err := cgroupsUsable(cgroups); err != nil {
		s.flags = append(s.flags, "--ignore-cgroups")
		s.note = fmt.Sprintf("without cgroups: %v", err)
	}
	return s, nil
}

// close removes the sandbox's folder. No container of it may be left.
func (s *sandbox) close() error {
	// runsc leaves an empty network namespace mounted in its state; containers that start at the same
	// time may have mounted several.
	for syscall.Unmount(filepath.Join(s.state(), "null-netns"), syscall.MNT_DETACH) == nil {
	}
	return os.RemoveAll(s.folder)
}

// state is where runsc keeps what it knows of its containers.
func (s *sandbox) state() string { return filepath.Join(s.folder, "state") }

func (s *sandbox) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, s.runsc, append(slices.Clone(s.flags), args...)...)
}

// A container has a name for runsc and a bundle on disk.
type container struct {
	s      *sandbox
	id     string
	bundle string
}

func (s *sandbox) newContainer(b bundle) (*container, error) {
	s.next++
	c := &container{s: s, id: fmt.Sprintf("sentrymm-%d-%d", os.Getpid(), s.next)}
	c.bundle = filepath.Join(s.folder, c.id)
	if err := os.Mkdir(c.bundle, 0o755); err != nil {
		return nil, noSpace(err, s.folder)
	}
	return c, b.write(c.bundle)
}

// run runs the container from beginning to end as `runsc run` does, and returns its exit status.
// When ctx ends before the container does, nothing of it is left.
func (c *container) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	cmd := c.s.command(ctx, "run", "--bundle="+c.bundle, c.id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	// The kernel kills the sandbox and its gofer when runsc ends; what they hold of our pipes goes with
	// them. If it does not, do not wait for it.
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		if cleanErr := c.delete(); cleanErr != nil {
			return 0, fmt.Errorf("%w; cleaning up: %w", ctx.Err(), cleanErr)
		}
		return 0, ctx.Err()
	}
	return exitCode(err)
}

// exitCode takes a container's exit status for what it is. A signal that ended it becomes 128+n, as in
// a shell.
func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 0, err
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// delete removes what runsc keeps of the container, running or not. It has a time of its own, since
// it is needed most when another one has run out.
func (c *container) delete() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := c.s.command(ctx, "delete", "--force", c.id).CombinedOutput()
	if err != nil {
		return fmt.Errorf("runsc delete %s: %w: %s", c.id, err, bytes.TrimSpace(out))
	}
	return nil
}

// comeUp starts the smallest container there is. A platform that this machine does not have fails
// here, within limit, and not in the middle of somebody's work; some hang instead of failing (kvm on a
// virtual machine that offers /dev/kvm and cannot nest).
func (s *sandbox) comeUp(ctx context.Context, guestRoot string, limit time.Duration) error {
	c, err := s.newContainer(guestBundle(guestRoot, "guest", "hello"))
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out bytes.Buffer
	status, err := c.run(bounded, nil, &out, &out)
	const advice = "choose another with PLATFORM= (systrap works wherever seccomp does)"
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("platform %s did not come up within %v on this machine: %s", s.platform, limit, advice)
	case err != nil:
		return fmt.Errorf("starting %s: %w", s.runsc, err)
	case status != 0 || strings.TrimSpace(out.String()) != "hello":
		return fmt.Errorf("no container comes up on platform %s on this machine (exit status %d); if it is the platform, %s:\n%s",
			s.platform, status, advice, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
