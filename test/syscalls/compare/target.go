package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"sentrymm/runsc-integration/sandbox"
	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// A target is somewhere to run programs.
type target interface {
	// run runs a program from beginning to end. What the program does to the target, up to ending it, is
	// part of the trace; the error is of what keeps it from being run at all.
	run(ctx context.Context, p *program.Program) ([]trace.Step, error)
	close() error
}

// An engine is a target: a process that runs the guest program of that name, somewhere. It is started
// when it is needed, and again when it has ended.
type engine struct {
	// start runs the guest until ctx or the guest ends.
	start func(ctx context.Context, in io.Reader, out, errs io.Writer) error
	// limit is how long a step may take.
	limit time.Duration

	running *guest
}

// A guest is a running engine.
type guest struct {
	in     io.WriteCloser
	steps  chan trace.Step // closed when the guest ended
	ended  chan struct{}
	err    error // why, when ended is closed
	errs   *tail
	cancel context.CancelFunc
}

// native is an engine on this machine.
func native(path, dir string) *engine {
	return &engine{limit: stepLimit, start: func(ctx context.Context, in io.Reader, out, errs io.Writer) error {
		cmd := exec.CommandContext(ctx, path)
		cmd.Env = []string{"KIT_DIR=" + dir}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errs
		cmd.WaitDelay = time.Second
		return cmd.Run()
	}}
}

// contained is an engine in a container: path is below root, which is its root.
func contained(s *sandbox.Sandbox, root, path string) *engine {
	return &engine{limit: stepLimit, start: func(ctx context.Context, in io.Reader, out, errs io.Writer) error {
		c, err := s.NewContainer(sandbox.Program(root, path).WithEnv("KIT_DIR", "/work"))
		if err != nil {
			return err
		}
		defer os.RemoveAll(c.Bundle())
		status, err := c.Run(ctx, in, out, errs)
		if err == nil && status != 0 {
			err = fmt.Errorf("exit status %d", status)
		}
		return err
	}}
}

// stepLimit is how long a step may take on a busy machine.
const stepLimit = 30 * time.Second

func (e *engine) run(ctx context.Context, p *program.Program) ([]trace.Step, error) {
	if e.running == nil {
		g, err := e.launch()
		if err != nil {
			return nil, err
		}
		e.running = g
	}
	g := e.running
	if err := json.NewEncoder(g.in).Encode(p.String()); err != nil {
		e.running = nil
		return nil, errors.Join(fmt.Errorf("sending a program: %w", err), g.stop())
	}
	var steps []trace.Step
	for len(steps) <= len(p.Steps) {
		select {
		case <-ctx.Done():
			e.running = nil
			g.stop()
			return nil, ctx.Err()
		case s, ok := <-g.steps:
			if ok && s.Error != "" {
				return nil, errors.New(s.Error)
			}
			if ok {
				steps = append(steps, s)
				continue
			}
			e.running = nil
			err := g.stop()
			if len(steps) == 0 {
				return nil, fmt.Errorf("the engine does not start: %w", err)
			}
			return append(steps, trace.Step{Result: "the engine ended: " + err.Error()}), nil
		case <-time.After(e.limit):
			e.running = nil
			err := g.stop()
			return append(steps, trace.Step{Result: fmt.Sprintf("nothing for %v; then %v", e.limit, err)}), nil
		}
	}
	return steps, nil
}

func (e *engine) launch() (*guest, error) {
	// A pipe of the host's: whoever copied from one of Go's to a process that has ended would wait for more, and the end not be noticed.
	inReader, inWriter, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	outReader, outWriter := io.Pipe()
	g := &guest{in: inWriter, steps: make(chan trace.Step, 1024), ended: make(chan struct{}), errs: &tail{}, cancel: cancel}
	go func() {
		defer close(g.ended)
		g.err = e.start(ctx, inReader, outWriter, g.errs)
		inReader.Close()
		outWriter.Close()
	}()
	go func() {
		defer close(g.steps)
		// A guest that says something else has gone mad: its end is what is reported.
		defer cancel()
		for d := json.NewDecoder(bufio.NewReader(outReader)); ; {
			var s trace.Step
			if err := d.Decode(&s); err != nil {
				if !errors.Is(err, io.EOF) {
					fmt.Fprintf(g.errs, "reading a trace: %v", err)
				}
				return
			}
			g.steps <- s
		}
	}()
	return g, nil
}

// stop ends the guest and returns why it ended, if it did so before.
func (g *guest) stop() error {
	g.in.Close()
	g.cancel()
	for range g.steps {
	}
	<-g.ended
	text := "end of file"
	if g.err != nil {
		text = g.err.Error()
	}
	if errs := g.errs.String(); errs != "" {
		text += ": " + errs
	}
	return errors.New(text)
}

func (e *engine) close() error {
	if e.running == nil {
		return nil
	}
	g := e.running
	e.running = nil
	g.in.Close()
	for range g.steps {
	}
	<-g.ended
	if g.err != nil {
		return fmt.Errorf("engine: %w: %s", g.err, g.errs)
	}
	return nil
}

// A tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const kept = 2000
	t.data = append(t.data, p...)
	t.data = t.data[max(0, len(t.data)-kept):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.data))
}
