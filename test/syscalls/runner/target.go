package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sentrymm/runsc-integration/sandbox"
)

// The names of targets.
const (
	native   = "native"
	systrap  = "systrap"
	ptrace   = "ptrace"
	kvm      = "kvm"
	validate = "validate" // systrap, with the whole memory manager checked after every operation
	stock    = "stock"    // systrap, on an unmodified runsc: to compare with
)

var (
	usualTargets = []string{native, systrap, ptrace, kvm, validate}
	sandboxed    = []string{systrap, ptrace, kvm, validate, stock}

	// The programs that runsc-integration builds.
	builds = []string{"runsc", "runsc-validate", "runsc-stock"}
)

// A target is a place where suites run.
type target struct {
	name string
	// What runs there, unless this is the target native.
	runsc    string
	platform string
	// Why no container comes up, or empty.
	down string
}

// newTarget is a target by its name. Where runsc is comes from the command line or the repository.
func newTarget(name string, runscs map[string]string) target {
	t := target{name: name, platform: name, runsc: runscs["runsc"]}
	switch name {
	case validate:
		t.platform, t.runsc = systrap, runscs["runsc-validate"]
	case stock:
		t.platform, t.runsc = systrap, runscs["runsc-stock"]
	}
	return t
}

// isOptional reports whether it is no failure that this target does not come up.
func (t *target) isOptional() bool { return t.name == kvm }

// judged reports whether differences in this target are failures, rather than something to know.
func (t *target) judged() bool { return t.name != stock }

// probe finds out whether containers come up, with guestRoot, a root file system of the guest program.
func (t *target) probe(ctx context.Context, guestRoot string, limit time.Duration) error {
	if t.name == native {
		return nil
	}
	s, err := sandbox.New(t.runsc, t.platform)
	if err != nil {
		return err
	}
	err = s.ComeUp(ctx, guestRoot, limit)
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), s.Close())
	}
	if err != nil {
		t.down = err.Error()
	}
	return s.Close()
}

// run runs a suite's program in a fresh place, until it ends or ctx does. Both its outputs go to out
// through one pipe. It returns the exit status. What a sandbox that breaks down says about it is added
// to out.
func (t *target) run(ctx context.Context, bin string, args, env []string, out io.Writer) (status int, err error) {
	work, err := os.MkdirTemp("", "sentrymm-suite-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if t.name == native {
		return runNative(ctx, bin, args, env, work, out)
	}
	return t.runContainer(ctx, bin, args, env, work, out)
}

func runNative(ctx context.Context, bin string, args, env []string, work string, out io.Writer) (status int, err error) {
	memory, err := os.MkdirTemp("/dev/shm", "sentrymm-suite-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(memory)) }()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir = work
	cmd.Env = append(suiteEnv(work, memory), env...)
	cmd.Stdout, cmd.Stderr = out, out
	// The processes that tests start end with the suite, whether they have our pipe or not.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	killAll := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = killAll
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = cmd.Wait()
	if killErr := killAll(); killErr != nil && killErr != syscall.ESRCH {
		return 0, killErr
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return 0, nil // it ended well, a process that it left behind did not
	}
	return sandbox.ExitStatus(err)
}

// What is where in a container.
const (
	programInside = "/suite.test"
	workInside    = "/work"
	memoryInside  = "/dev/shm"
)

func (t *target) runContainer(ctx context.Context, bin string, args, env []string, work string, out io.Writer) (status int, err error) {
	root := filepath.Join(work, "root")
	files := filepath.Join(work, "files")
	panics := filepath.Join(work, "panic.log")
	if err := makeRoot(root, files); err != nil {
		return 0, err
	}
	s, err := sandbox.New(t.runsc, t.platform, "--panic-log="+panics)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c, err := s.NewContainer(sandbox.Bundle{
		Root: root,
		Args: append([]string{programInside}, args...),
		Env:  append(suiteEnv(workInside, memoryInside), env...),
		Dir:  workInside,
		Mounts: []sandbox.Mount{
			{Destination: programInside, Type: "bind", Source: bin, Options: []string{"ro"}},
			{Destination: workInside, Type: "bind", Source: files, Options: []string{"rw"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		},
	})
	if err != nil {
		return 0, err
	}
	status, err = c.Run(ctx, nil, out, out)
	if report, readErr := os.ReadFile(panics); readErr == nil && len(report) > 0 {
		fmt.Fprintf(out, "\nthe sandbox says:\n%s\n", report)
	}
	return status, err
}

// makeRoot makes a root file system with nothing but places to mount at, and a folder for files.
func makeRoot(root, files string) error {
	for _, dir := range []string{"proc", "sys", "dev", "tmp", workInside} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return sandbox.NoSpace(err, root)
		}
	}
	if err := os.WriteFile(filepath.Join(root, programInside), nil, 0o755); err != nil {
		return sandbox.NoSpace(err, root)
	}
	return sandbox.NoSpace(os.Mkdir(files, 0o777), files)
}

// suiteEnv is the environment of a suite, the same natively and in containers but for the folders. What
// suites themselves are told by variables goes along.
func suiteEnv(work, memory string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"TMPDIR=" + work,
		"KIT_DIR=" + work,
		"KIT_TMPFS=" + memory,
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "SEED=") {
			env = append(env, v)
		}
	}
	return env
}
