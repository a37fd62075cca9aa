package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"sentrymm/runsc-integration/sandbox"
)

const (
	// The staged module and a runsc take 75 and 100 MiB; linking needs as much again for a moment.
	buildSpace = 500 << 20
	// What compiling runsc once adds to Go's build cache, rounded up.
	cacheSpace = 1 << 30
)

// A target is one runsc to build.
type target struct {
	stock bool   // from the module as it is
	mm    string // the folder that replaces gVisor's memory manager, unless stock
	tags  string // build tags, separated by commas
	arch  string
	out   string
}

func buildCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	var t target
	flags.BoolVar(&t.stock, "stock", false, "build gVisor's own runsc from the same module, for comparisons")
	flags.StringVar(&t.mm, "mm", "", "install this folder as the memory manager (default pkg/mm)")
	flags.StringVar(&t.tags, "tags", "", "build tags, separated by commas; mmvalidate checks the memory manager after every operation, mmtimes logs what faults take")
	flags.StringVar(&t.arch, "arch", runtime.GOARCH, "architecture to build for: "+strings.Join(architectures, " or "))
	flags.StringVar(&t.out, "o", "", "write the program here (default build/runsc, -stock and -validate when asked for, below build/ARCH when cross-building)")
	if err := flags.Parse(args); err != nil {
		return quiet(err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("build takes no arguments, got %q", flags.Args())
	}
	if err := checkOS(runtime.GOOS); err != nil {
		return err
	}
	p, err := findProject(ctx)
	if err != nil {
		return err
	}
	out, err := p.buildRunsc(ctx, t)
	if err != nil {
		return err
	}
	fmt.Println(out)
	return nil
}

// buildRunsc builds t, as far as it is not built already, and returns the program's path.
func (p *project) buildRunsc(ctx context.Context, t target) (string, error) {
	t = p.complete(t)
	if err := checkArch(t.arch); err != nil {
		return "", err
	}
	if err := checkSpace(p.build(), buildSpace, "building runsc"); err != nil {
		return "", err
	}
	if err := p.checkCacheSpace(ctx); err != nil {
		return "", err
	}
	gvisor, err := p.gvisor(ctx)
	if err != nil {
		return "", err
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()

	name, replace := "runsc-stock", ""
	if !t.stock {
		staged := p.build("gvisor")
		if err := stage(ctx, gvisor.Dir, t.mm, staged); err != nil {
			return "", fmt.Errorf("staging %s: %w", staged, err)
		}
		// Relative: runsc's build information has it, and is to be the same wherever this is built.
		in, err := filepath.Rel(p.root, staged)
		if err != nil {
			return "", err
		}
		name, replace = "runsc", "./"+in
	}
	modFile := p.build(name + ".mod")
	if err := p.writeModFile(ctx, modFile, gvisor, replace); err != nil {
		return "", err
	}
	return t.out, p.compile(ctx, t, modFile, p.versionName(ctx, t, gvisor.Version))
}

// complete fills in what the caller left open.
func (p *project) complete(t target) target {
	if t.arch == "" {
		t.arch = runtime.GOARCH
	}
	if t.mm == "" {
		t.mm = filepath.Join(p.root, "pkg", "mm")
	}
	if t.out == "" {
		name := "runsc"
		if t.stock {
			name += "-stock"
		}
		for _, tag := range strings.Split(t.tags, ",") {
			if suffix, ok := strings.CutPrefix(tag, "mm"); ok {
				name += "-" + suffix
			}
		}
		t.out = p.build(name)
		if t.arch != runtime.GOARCH {
			t.out = p.build(t.arch, name)
		}
	}
	return t
}

func stage(ctx context.Context, gvisor, mm, dir string) error {
	l, err := stagedLayout(ctx, gvisor, mm)
	if err != nil {
		return err
	}
	changed, err := l.mirror(ctx, dir)
	if err == nil && changed > 0 {
		fmt.Fprintf(os.Stderr, "staged %d files in %s\n", changed, dir)
	}
	return err
}

// compile runs go build. The static program it makes can start itself again in an empty chroot, which
// runsc does.
func (p *project) compile(ctx context.Context, t target, modFile, version string) error {
	// A go command that was killed leaves its folder behind. Beside the output, so that the finished
	// program gets its name by a rename.
	tmp := p.build("tmp")
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return sandbox.NoSpace(err, tmp)
	}
	defer os.RemoveAll(tmp)
	args := []string{"build", "-modfile=" + modFile, "-mod=readonly", "-buildvcs=false",
		// Paths out of the program: packages that both runscs have alike are compiled once.
		"-trimpath",
		"-tags=" + t.tags,
		"-ldflags=-X '" + gvisorPath + "/runsc/version.version=" + version + "'",
		"-o", t.out, gvisorPath + "/runsc"}
	fmt.Fprintf(os.Stderr, "building %s\n", t.out)
	return p.goCommand(ctx, args, "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+t.arch, "GOTMPDIR="+tmp)
}

// buildStatic builds a program of this repository that runs in an empty root file system.
func (p *project) buildStatic(ctx context.Context, out, pkg string) error {
	return p.goCommand(ctx, []string{"build", "-buildvcs=false", "-trimpath", "-o", out, pkg}, "CGO_ENABLED=0", "GOOS=linux")
}

// buildStaticTest does the same for the tests of a package.
func (p *project) buildStaticTest(ctx context.Context, out, pkg string) error {
	return p.goCommand(ctx, []string{"test", "-c", "-buildvcs=false", "-trimpath", "-o", out, pkg}, "CGO_ENABLED=0", "GOOS=linux")
}

// goCommand runs the go command in the repository and shows what it says.
func (p *project) goCommand(ctx context.Context, args []string, env ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = p.root
	cmd.Env = append(append(os.Environ(), "GOWORK=off"), env...)
	// Terminated, not killed: then it removes what it was writing.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var said bytes.Buffer
	cmd.Stdout = os.Stderr // our output is the path of what was built
	cmd.Stderr = io.MultiWriter(os.Stderr, &said)
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("go %s: %w", args[0], ctx.Err())
	}
	if err == nil {
		return nil
	}
	text := said.String()
	if strings.Contains(text, "no space left on device") {
		return fmt.Errorf("go %s: no space left on device: make room below %s, in go's build cache (go env GOCACHE) and in the module cache, and run this again", args[0], p.build())
	}
	return fmt.Errorf("go %s: %w%s", args[0], err, offlineHint(text))
}

func (p *project) checkCacheSpace(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOCACHE").Output()
	if err != nil {
		return fmt.Errorf("go env GOCACHE: %w", withStderr(err))
	}
	return checkSpace(strings.TrimSpace(string(out)), cacheSpace, "Go's build cache")
}

// versionName is what runsc --version answers. containerd and podman take the line as it is.
func (p *project) versionName(ctx context.Context, t target, gvisor string) string {
	if t.stock {
		return fmt.Sprintf("gvisor %s (unmodified, built by sentrymm %s)", gvisor, p.revision(ctx))
	}
	name := fmt.Sprintf("sentrymm %s (gvisor %s)", p.revision(ctx), gvisor)
	if t.tags != "" {
		name += " tags " + t.tags
	}
	return name
}

// revision names the commit the checkout is at, or says that there is none.
func (p *project) revision(ctx context.Context) string {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", p.root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	revision, err := git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "unknown" // an archive without .git, or no git here
	}
	if changes, err := git("status", "--porcelain"); err != nil || changes != "" {
		revision += "-dirty"
	}
	return revision
}

// quiet leaves an error out that the flag package has printed already.
func quiet(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	return exitStatus(2)
}
