package main

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sentrymm/runsc-integration/sandbox"
)

// These tests run containers under build/runsc. `runsc-integration check` builds all that they need, tells
// them through the environment (check.go) what to test, and does not accept that one is skipped.

// How long one program may take in a container. The slowest needs a few seconds on an idle machine.
const workloadLimit = 4 * time.Minute

// A workload is a program that must behave in a container as it does outside.
type workload struct {
	name    string
	command []string // run in a copy of testdata/workloads
	status  int      // how it ends
}

var workloads = []workload{
	{"PythonThreads", []string{"python3", "threads.py"}, 0},
	{"GoBuild", []string{"sh", "-c", "cd small && go build -o small . && ./small"}, 0},
	{"Node", []string{"node", "workers.js"}, 0},
	{"JVM", []string{"sh", "-c", "javac -d . Threads.java && java -Xmx64m -cp . Threads"}, 0},
	{"ForkAndExec", []string{"sh", "forks.sh"}, 3},
	{"ForkAndExecThreads", []string{guestProgram, "forkexec"}, 0},
	{"ExitStatus", []string{guestProgram, "hello", "-exit", "42"}, 42},
	{"Killed", []string{"sh", "-c", "echo alive; kill -KILL $$"}, 128 + 9},
}

// guestProgram stands for the path of the guest program in a command.
const guestProgram = "GUEST"

func TestContainer(t *testing.T) {
	p, runsc := needRunsc(t)
	outside := map[string]result{}
	for _, w := range workloads {
		outside[w.name] = w.outside(t, p)
	}
	for _, platform := range platforms() {
		t.Run(platform, func(t *testing.T) {
			s := openSandbox(t, p, runsc, platform)
			t.Run("ReplaceWhileReading", func(t *testing.T) { replaceWhileReading(t, s, p) })
			for _, w := range workloads {
				t.Run(w.name, func(t *testing.T) {
					dir := copyWorkloads(t)
					got := inside(t, s, sandbox.Machine(dir, w.args(t, p)...))
					require.Equal(t, outside[w.name], got, "inside differs from outside")
				})
			}
			t.Run("NoPendingIdentitiesAtSave", func(t *testing.T) { checkpointAndRestore(t, s, p) })
		})
	}
}

// TestRunscIsOurs: the program is static, holds this repository's tree, and says which commit it is and
// which gVisor. An unmodified one holds nothing of ours.
func TestRunscIsOurs(t *testing.T) {
	p, runsc := needRunsc(t)
	out, err := exec.CommandContext(t.Context(), runsc, "--version").Output()
	require.NoError(t, err)
	version, err := p.pinned()
	require.NoError(t, err)
	require.Contains(t, string(out), version)

	program, err := elf.Open(runsc)
	require.NoError(t, err)
	defer program.Close()
	for _, segment := range program.Progs {
		require.NotEqual(t, elf.PT_INTERP, segment.Type, "%s is linked dynamically", runsc)
	}
	symbols, err := program.Symbols()
	require.NoError(t, err)
	ours := slices.ContainsFunc(symbols, func(s elf.Symbol) bool {
		return strings.HasPrefix(s.Name, "sentrymm/pkg/vmatree.")
	})
	stock := strings.Contains(string(out), "unmodified")
	require.Equal(t, !stock, ours, "%s", out)
	if ours {
		require.Contains(t, string(out), "sentrymm ")
	}
}

// replaceWhileReading runs the guest program as the only file of a container's root.
func replaceWhileReading(t *testing.T, s *sandbox.Sandbox, p *project) {
	got := inside(t, s, sandbox.Program(p.guestRoot(), "guest", "replace", "-mremap"))
	require.Zero(t, got.status, "%+v", got)
	require.Regexp(t, `(?m)^replacements done: [1-9]`, got.stdout)
	require.Regexp(t, `(?m)^reads done: [1-9]\d* by loads`, got.stdout)
	require.Regexp(t, `(?m)^gaps seen: 0$`, got.stdout)
}

// TestGuestOutside is the guest program's own test: nothing it checks is wrong on Linux.
func TestGuestOutside(t *testing.T) {
	p := openHere(t)
	require.NoError(t, p.buildGuest(t.Context()))
	guest := filepath.Join(p.guestRoot(), "guest")
	for _, args := range [][]string{{"replace"}, {"forkexec", "-children", "50"}} {
		out, err := exec.CommandContext(t.Context(), guest, args...).CombinedOutput()
		require.NoError(t, err, "guest %v:\n%s", args, out)
	}
}

// TestGuestFindsGaps: where there are gaps, each way of looking finds some, and the program says so.
func TestGuestFindsGaps(t *testing.T) {
	p := openHere(t)
	require.NoError(t, p.buildGuest(t.Context()))
	cmd := exec.CommandContext(t.Context(), filepath.Join(p.guestRoot(), "guest"), "replace", "-gaps")
	out, err := cmd.CombinedOutput()
	require.Equal(t, 1, cmd.ProcessState.ExitCode(), "%v\n%s", err, out)
	require.Regexp(t, `(?m)^gaps seen: [1-9]`, string(out))
	for _, look := range []string{"loads", `write\(2\)`, `process_vm_readv\(2\)`, "/proc/self/maps"} {
		require.Regexp(t, `(?m)^gap: `+look, string(out))
	}
}

// checkpointAndRestore saves a program whose threads are in the middle of replacing mappings, lets it
// go on in a new sandbox, and has it look at its memory there.
func checkpointAndRestore(t *testing.T, s *sandbox.Sandbox, p *project) {
	ctx, cancel := context.WithTimeout(t.Context(), workloadLimit)
	defer cancel()
	image := t.TempDir()
	b := sandbox.Program(p.guestRoot(), "guest", "serve", "-mremap", "-readers", "2")

	before, err := s.NewContainer(b)
	require.NoError(t, err)
	serving := newWatched()
	ended := make(chan error, 1)
	go func() {
		_, err := before.Run(ctx, nil, serving, serving)
		ended <- err
	}()
	serving.waitFor(ctx, t, "serving\n")
	out, err := s.Command(ctx, "checkpoint", "--image-path="+image, before.ID()).CombinedOutput()
	require.NoError(t, err, "runsc checkpoint: %s\n%s", out, serving)
	require.NoError(t, <-ended)

	after, err := s.NewContainer(b)
	require.NoError(t, err)
	served := newWatched()
	restore := s.Command(ctx, "restore", "--bundle="+after.Bundle(), "--image-path="+image, after.ID())
	restore.Stdout, restore.Stderr = served, served
	require.NoError(t, restore.Start())
	defer after.Delete()
	go func() { ended <- restore.Wait() }()
	for asked := false; !asked; {
		// There is nothing to signal until the restore has come far enough.
		asked = s.Command(ctx, "kill", after.ID(), "USR1").Run() == nil
		select {
		case err := <-ended:
			require.NoError(t, err, "restored program: %s", served)
			require.True(t, asked, "the restored program ended unasked: %s", served)
			ended <- nil
		case <-time.After(50 * time.Millisecond):
		}
		require.NoError(t, ctx.Err(), "the restored program does not answer: %s", served)
	}
	require.NoError(t, <-ended, "restored program: %s", served)
	require.Contains(t, served.String(), "served, gaps seen: 0\n")
}

// TestPlatformThatDoesNotComeUp: a platform that cannot work is named within the limit, and nothing is
// left of the try. An unknown one stands for those that fail, a limit too short for those that hang.
func TestPlatformThatDoesNotComeUp(t *testing.T) {
	p, runsc := needRunsc(t)
	t.Run("fails", func(t *testing.T) {
		s, err := sandbox.New(runsc, "abacus")
		require.NoError(t, err)
		defer s.Close()
		require.ErrorContains(t, s.ComeUp(t.Context(), p.guestRoot(), startLimit), "no container comes up on platform abacus on this machine")
	})
	t.Run("hangs", func(t *testing.T) {
		hanging := filepath.Join(t.TempDir(), "runsc")
		// Started for `delete` it ends; started for `run` it does not.
		require.NoError(t, os.WriteFile(hanging, []byte("#!/bin/sh\ncase \"$*\" in *delete*) exit 0;; esac\nexec sleep 1000\n"), 0o755))
		s, err := sandbox.New(hanging, "kvm")
		require.NoError(t, err)
		defer s.Close()
		start := time.Now()
		require.ErrorContains(t, s.ComeUp(t.Context(), p.guestRoot(), 100*time.Millisecond), "platform kvm did not come up within 100ms")
		require.Less(t, time.Since(start), 20*time.Second)
	})
}

// A result is what a program showed to the outside.
type result struct {
	status         int
	stdout, stderr string
}

func inside(t *testing.T, s *sandbox.Sandbox, b sandbox.Bundle) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), workloadLimit)
	defer cancel()
	c, err := s.NewContainer(b)
	require.NoError(t, err)
	var stdout, stderr bytes.Buffer
	status, err := c.Run(ctx, nil, &stdout, &stderr)
	require.NoError(t, err, "%s%s", stdout.String(), stderr.String())
	return result{status, stdout.String(), stderr.String()}
}

func (w workload) outside(t *testing.T, p *project) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), workloadLimit)
	defer cancel()
	args := w.args(t, p)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = copyWorkloads(t)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	status, err := sandbox.ExitStatus(cmd.Run())
	require.NoError(t, err)
	require.Equal(t, w.status, status, "%s outside: %s", w.name, stderr.String())
	require.NotZero(t, stdout.Len(), "%s says nothing", w.name)
	return result{status, stdout.String(), stderr.String()}
}

// args is the command with paths in the place of names.
func (w workload) args(t *testing.T, p *project) []string {
	t.Helper()
	args := append([]string(nil), w.command...)
	if args[0] == guestProgram {
		args[0] = filepath.Join(p.guestRoot(), "guest")
		return args
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		cannotRun(t, err.Error())
	}
	args[0] = path
	return args
}

// copyWorkloads copies the programs to a folder of their own: go build compiles anew in each.
func copyWorkloads(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "workloads"))))
	return dir
}

func openHere(t *testing.T) *project {
	t.Helper()
	p, err := findProject(t.Context())
	require.NoError(t, err)
	return p
}

// needRunsc skips a test, or fails it where it is mandatory, on a machine that cannot run containers yet.
func needRunsc(t *testing.T) (*project, string) {
	t.Helper()
	if testing.Short() {
		t.Skip("containers are not run with -short")
	}
	p := openHere(t)
	runsc := os.Getenv(runscVar)
	if runsc == "" {
		runsc = p.build("runsc")
	}
	if _, err := os.Stat(runsc); err != nil {
		cannotRun(t, "there is no runsc: `make build` makes one ("+err.Error()+")")
	}
	if err := checkRoot(os.Geteuid()); err != nil {
		cannotRun(t, err.Error())
	}
	require.NoError(t, p.buildGuest(t.Context()))
	return p, runsc
}

func cannotRun(t *testing.T, why string) {
	t.Helper()
	if os.Getenv(mandatoryVar) != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func platforms() []string {
	if names := strings.Fields(os.Getenv(platformsVar)); len(names) > 0 {
		return names
	}
	return []string{"systrap", "ptrace"}
}

func openSandbox(t *testing.T, p *project, runsc, platform string, flags ...string) *sandbox.Sandbox {
	t.Helper()
	s, err := sandbox.New(runsc, platform, flags...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	if s.Note() != "" {
		t.Log(s.Note())
	}
	require.NoError(t, s.ComeUp(t.Context(), p.guestRoot(), startLimit))
	return s
}

// watched collects what a container writes and lets a test wait for a line of it.
type watched struct {
	more chan struct{} // has one element when something was written since it was last empty

	mu   sync.Mutex
	text bytes.Buffer
}

func newWatched() *watched { return &watched{more: make(chan struct{}, 1)} }

func (o *watched) Write(piece []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(piece)
}

func (o *watched) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *watched) waitFor(ctx context.Context, t *testing.T, line string) {
	t.Helper()
	for !strings.Contains(o.String(), line) {
		select {
		case <-o.more:
		case <-ctx.Done():
			require.FailNow(t, fmt.Sprintf("no %q", line), o.String())
		}
	}
}
