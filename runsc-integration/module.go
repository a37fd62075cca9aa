package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const gvisorPath = "gvisor.dev/gvisor"

// goMod is what `go mod edit -json` says of a mod file, as far as it is needed here.
type goMod struct {
	Module  struct{ Path string }
	Go      string
	Require []requirement
}

type requirement struct{ Path, Version string }

// A project is this repository on this machine.
type project struct {
	root string // its top folder
	mod  goMod
}

// findProject finds the repository around the working directory and checks that the go command
// suits it.
func findProject(ctx context.Context) (*project, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		file := filepath.Join(dir, "go.mod")
		if _, err := os.Stat(file); err == nil {
			return openProject(ctx, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil, errors.New("no go.mod here or above: run this inside the sentrymm checkout")
		}
		dir = filepath.Dir(dir)
	}
}

func openProject(ctx context.Context, root string) (*project, error) {
	p := &project{root: root}
	var err error
	// An old go command refuses the file before it says how old it is.
	if wanted := goLine(filepath.Join(root, "go.mod")); wanted != "" {
		if err := checkGo(ctx, wanted); err != nil {
			return nil, err
		}
	}
	if p.mod, err = readMod(ctx, filepath.Join(root, "go.mod")); err != nil {
		return nil, err
	}
	if p.mod.Module.Path != "sentrymm" {
		return nil, fmt.Errorf("%s is module %s: run this inside the sentrymm checkout", root, p.mod.Module.Path)
	}
	return p, nil
}

// goLine reads the version of a mod file's go line without the go command's help.
func goLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "go "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func readMod(ctx context.Context, file string) (goMod, error) {
	var mod goMod
	out, err := exec.CommandContext(ctx, "go", "mod", "edit", "-json", file).Output()
	if err != nil {
		return mod, fmt.Errorf("go mod edit -json %s: %w", file, withStderr(err))
	}
	return mod, json.Unmarshal(out, &mod)
}

// build is the folder for everything that is made and can be made again.
func (p *project) build(name ...string) string {
	return filepath.Join(append([]string{p.root, "build"}, name...)...)
}

// pinned is the version of gVisor in go.mod.
func (p *project) pinned() (string, error) {
	for _, r := range p.mod.Require {
		if r.Path == gvisorPath {
			return r.Version, nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", filepath.Join(p.root, "go.mod"), gvisorPath)
}

// A module is one version of gVisor in the module cache.
type module struct {
	Version string
	Dir     string // its files
	GoMod   string // its mod file
	Error   string
}

// gvisor finds the pinned module in the module cache, or downloads it. The go command compares it
// with go.sum.
func (p *project) gvisor(ctx context.Context) (module, error) {
	var m module
	version, err := p.pinned()
	if err != nil {
		return m, err
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", gvisorPath+"@"+version)
	cmd.Dir = p.root
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if jsonErr := json.Unmarshal(out, &m); jsonErr != nil && err == nil {
		return m, fmt.Errorf("go mod download: %w", jsonErr)
	}
	if err == nil && m.Error == "" {
		return m, nil
	}
	if m.Error == "" {
		m.Error = strings.TrimSpace(stderr.String())
	}
	return m, fmt.Errorf("%s %s cannot be had: %s%s", gvisorPath, version, m.Error, offlineHint(m.Error))
}

// offlineHint is what to do about an error of the go command that comes from the network, or nothing.
func offlineHint(text string) string {
	for _, sign := range []string{"dial tcp", "no such host", "lookup disabled by GOPROXY=off", "connection refused", "network is unreachable", "i/o timeout"} {
		if strings.Contains(text, sign) {
			return "\nIt is not in the module cache and the module proxy does not answer: connect this machine, " +
				"set GOPROXY to a proxy it reaches, or set GOMODCACHE to a module cache that has it."
		}
	}
	return ""
}

// withStderr adds what a command wrote to its error.
func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}
