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
	"strings"
	"time"

	"sentrymm/runsc-integration/sandbox"
)

// Names of targets: what stands in their columns.
const (
	ours   = "ours"
	stock  = "stock"
	native = "native"
	times  = "ours, with times noted"
)

// A target is somewhere to run programs.
type target struct {
	name     string // ours, stock or native
	platform string // of the sandbox; empty natively
	s        *sandbox.Sandbox
}

// targets are those of one platform together with the native one.
type targets struct {
	root   string // of containers that hold the load program only
	load   string
	native *target
	pairs  []pair
	times  *timesTarget // nil if not wanted
}

// A pair is what is compared: two sandboxes on one platform.
type pair struct{ ours, stock *target }

// comeUpLimit is how long a container may take to come up on a platform that works.
const comeUpLimit = 20 * time.Second

func newTargets(c config) (*targets, error) {
	t := &targets{native: &target{name: native}}
	files := []string{c.runsc, c.stock, c.load}
	if c.measuresWithin() {
		files = append(files, c.times)
	}
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("%w: make bench builds it", err)
		}
	}
	t.root = filepath.Join(c.out, "root")
	var err error
	if t.root, err = filepath.Abs(t.root); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(t.root, 0o755); err != nil {
		return nil, err
	}
	t.load = filepath.Join(t.root, "load")
	program, err := os.ReadFile(c.load)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(t.load, program, 0o755); err != nil {
		return nil, sandbox.NoSpace(err, t.root)
	}
	if c.measuresWithin() {
		if t.times, err = newTimesTarget(c); err != nil {
			return nil, err
		}
	}
	for _, platform := range c.platforms {
		var p pair
		if p.ours, err = newTarget(ours, c.runsc, platform); err != nil {
			return nil, err
		}
		if p.stock, err = newTarget(stock, c.stock, platform); err != nil {
			return nil, err
		}
		for _, side := range []*target{p.ours, p.stock} {
			ctx, cancel := context.WithTimeout(context.Background(), comeUpLimit)
			_, err := side.run(ctx, sandbox.Program(t.root, t.load, "-exit"), nil, nil)
			cancel()
			if err != nil {
				return nil, fmt.Errorf("no container comes up, %s on %s: %w", side.name, platform, err)
			}
		}
		t.pairs = append(t.pairs, p)
	}
	return t, nil
}

func newTarget(name, runsc, platform string, flags ...string) (*target, error) {
	path, err := filepath.Abs(runsc)
	if err != nil {
		return nil, err
	}
	s, err := sandbox.New(path, platform, flags...)
	return &target{name: name, platform: platform, s: s}, err
}

func (t *targets) close() {
	for _, p := range t.pairs {
		p.ours.s.Close()
		p.stock.s.Close()
	}
	if t.times != nil {
		t.times.close()
	}
}

// column is what the target is called in results.
func (t *target) column() string {
	if t.platform == "" {
		return t.name
	}
	return t.name + "-" + t.platform
}

// A watch sees a running program from outside: pid is that of the sandbox, or natively of the program.
type watch func(ctx context.Context, pid int, in io.Writer, out <-chan string) error

// run runs a program from beginning to end, and returns the lines that it wrote. If w is not nil, it gets
// them instead, while the program runs. If it fails, there are those that it wrote before.
func (t *target) run(ctx context.Context, b sandbox.Bundle, env []string, w watch) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var out lines
	if w != nil {
		out.passed = make(chan string, 1024)
	}
	var errs bytes.Buffer
	var cmd *exec.Cmd
	var pid func() (int, error)
	if t.s == nil {
		args := b.Args
		if b.Root != "/" {
			args = append([]string{filepath.Join(b.Root, args[0])}, args[1:]...)
		}
		cmd = exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env, cmd.Dir = b.Env, b.Dir
		pid = func() (int, error) { return cmd.Process.Pid, nil }
	} else {
		for _, e := range env {
			b.Env = append(b.Env, e)
		}
		c, err := t.s.NewContainer(b)
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(c.Bundle())
		cmd = t.s.Command(ctx, "run", "--bundle="+c.Bundle(), c.ID())
		pid = func() (int, error) { return t.pidOf(ctx, c) }
		defer func() {
			if ctx.Err() != nil {
				c.Delete()
			}
		}()
	}
	var in io.WriteCloser
	if w != nil {
		var err error
		if in, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	watched := make(chan error, 1)
	go func() {
		if w == nil {
			watched <- nil
			return
		}
		defer in.Close()
		n, err := pid()
		if err == nil {
			err = w(ctx, n, in, out.passed)
		}
		if err != nil {
			cancel()
		}
		watched <- err
	}()
	err := cmd.Wait()
	out.end()
	werr := <-watched
	if err != nil && ctx.Err() == nil || err != nil && werr == nil {
		return out.all, fmt.Errorf("%s: %w: %s", t.column(), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.all, werr
}

// pidOf returns the process of a running container's sandbox, once there is one.
func (t *target) pidOf(ctx context.Context, c *sandbox.Container) (int, error) {
	for {
		out, err := t.s.Command(ctx, "state", c.ID()).Output()
		var state struct {
			Pid    int
			Status string
		}
		if err == nil {
			err = jsonUnmarshal(out, &state)
		}
		if err == nil && state.Pid != 0 && state.Status == "running" {
			return state.Pid, nil
		}
		select {
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lines collects lines, or passes them on.
type lines struct {
	part   string
	all    []string
	passed chan string
}

func (l *lines) Write(p []byte) (int, error) {
	l.part += string(p)
	for {
		line, rest, ok := strings.Cut(l.part, "\n")
		if !ok {
			return len(p), nil
		}
		l.part = rest
		if l.passed != nil {
			l.passed <- line
		} else {
			l.all = append(l.all, line)
		}
	}
}

func (l *lines) end() {
	if l.passed != nil {
		close(l.passed)
	}
}
