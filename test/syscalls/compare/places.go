package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"sentrymm/runsc-integration/sandbox"
)

// places are where programs are run: folders for their files, and a sandbox.
type places struct {
	options
	folder  string // has all others in it
	guest   string // the engine, in the container's root
	sandbox *sandbox.Sandbox
}

func newPlaces(ctx context.Context, o options) (p *places, err error) {
	folder, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return nil, err
	}
	p = &places{options: o, folder: folder, guest: filepath.Join(folder, "root", "engine")}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	// Containers that start at the same time fail if each of them makes what it mounts something on.
	for _, dir := range []string{"root", "root/work", "root/proc", "root/dev", "root/sys", "root/tmp", "native"} {
		if err := os.Mkdir(filepath.Join(folder, dir), 0o777); err != nil {
			return p, err
		}
	}
	if err := p.getEngine(ctx); err != nil {
		return p, err
	}
	if o.platform == "native" {
		return p, nil
	}
	runsc, err := filepath.Abs(o.runsc)
	if err != nil {
		return p, err
	}
	if _, err := os.Stat(runsc); err != nil {
		return p, fmt.Errorf("no runsc: %w; `make build` builds it", err)
	}
	// Without an overlay, files of the root are the gofer's.
	p.sandbox, err = sandbox.New(runsc, o.platform, "--overlay2=none")
	return p, err
}

// getEngine copies the guest to where containers find it, or builds it there.
func (p *places) getEngine(ctx context.Context) error {
	if p.engine != "" {
		data, err := os.ReadFile(p.engine)
		if err != nil {
			return err
		}
		return os.WriteFile(p.guest, data, 0o755)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", p.guest, "sentrymm/test/syscalls/compare/engine")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the engine: %w\n%s", err, out)
	}
	return nil
}

// pair is a new pair of targets.
func (p *places) pair() *pair {
	here := native(p.guest, filepath.Join(p.folder, "native"))
	if p.sandbox == nil {
		return &pair{native: here, other: native(p.guest, filepath.Join(p.folder, "native")), platform: p.platform}
	}
	return &pair{native: here, other: contained(p.sandbox, filepath.Dir(p.guest), p.guest), platform: p.platform}
}

func (p *places) close() error {
	var err error
	if p.sandbox != nil {
		err = p.sandbox.Close()
	}
	return errors.Join(err, os.RemoveAll(p.folder))
}
