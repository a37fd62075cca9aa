// Package sandbox runs containers with runsc: one Sandbox is one runsc on one platform, a Bundle
// describes a container, and ComeUp says whether the platform works on this machine at all.
//
// It uses the standard library only: runsc-integration must compile where the module cache is empty.
package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A Sandbox is a way to run containers: one runsc on one platform. Its methods may be called by
// several goroutines at a time, but for Close.
type Sandbox struct {
	runsc    string
	platform string
	flags    []string // of runsc, for every container
	note     string   // what had to be done without, or empty
	folder   string   // bundles and runsc's own state
}

// New prepares runsc to run containers with what this machine allows. Its folder has a short path
// because runsc makes sockets in it. more are flags of runsc; the last of two that differ counts.
// The caller closes the sandbox.
func New(runsc, platform string, more ...string) (*Sandbox, error) {
	return newAt(cgroupRoot, runsc, platform, more...)
}

// newAt is New for a machine whose cgroups are mounted at cgroups.
func newAt(cgroups, runsc, platform string, more ...string) (*Sandbox, error) {
	folder, err := os.MkdirTemp("", "sentrymm-")
	if err != nil {
		return nil, NoSpace(err, os.TempDir())
	}
	s := &Sandbox{runsc: runsc, platform: platform, folder: folder}
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

// Note says what the sandbox has to do without on this machine, in one line, or is empty.
func (s *Sandbox) Note() string { return s.note }

// Close removes the sandbox's folder. No container of it may be left.
func (s *Sandbox) Close() error {
	// runsc leaves an empty network namespace mounted in its state; containers that start at the same
	// time may have mounted several.
	for syscall.Unmount(filepath.Join(s.state(), "null-netns"), syscall.MNT_DETACH) == nil {
	}
	return os.RemoveAll(s.folder)
}

// state is where runsc keeps what it knows of its containers.
func (s *Sandbox) state() string { return filepath.Join(s.folder, "state") }

// Command is runsc with this sandbox's flags and args: for subcommands that have no method here.
func (s *Sandbox) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, s.runsc, append(slices.Clone(s.flags), args...)...)
}

// ComeUp starts the smallest container there is: the static program guest, alone in the folder
// guestRoot, which says hello. A platform that this machine does not have fails here, within limit, and
// not in the middle of somebody's work; some hang instead of failing (kvm on a virtual machine that
// offers /dev/kvm and cannot nest). When ctx ends first the error is ctx's. Otherwise the first line of
// the error says what is wrong, and those after it are runsc's own words.
func (s *Sandbox) ComeUp(ctx context.Context, guestRoot string, limit time.Duration) error {
	c, err := s.NewContainer(Program(guestRoot, "guest", "hello"))
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out bytes.Buffer
	status, err := c.Run(bounded, nil, &out, &out)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("platform %s did not come up within %v on this machine", s.platform, limit)
	case err != nil:
		return fmt.Errorf("starting %s: %w", s.runsc, err)
	case status != 0 || strings.TrimSpace(out.String()) != "hello":
		return fmt.Errorf("no container comes up on platform %s on this machine (exit status %d)\n%s",
			s.platform, status, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// NoSpace turns "no space left on device", met below dir, into what to do about it. Other errors, and
// nil, stay what they are.
func NoSpace(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: make room below %s and run this again, it goes on where it stopped", err, dir)
	}
	return err
}
