package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sentrymm/test/syscalls/compare/known"
	"sentrymm/test/syscalls/compare/program"
)

// A runner runs programs and reports their differences.
type runner struct {
	options
	programs chan *program.Program
	bar      *bar

	mu       sync.Mutex
	seen     map[string]bool // programs of differences that were reported
	reported int
	cancel   context.CancelFunc // ends all
	failed   error
}

// run does what the options say and returns how many differences there were.
func run(ctx context.Context, o options) (differences int, err error) {
	places, err := newPlaces(ctx, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, places.close()) }()
	list, total, err := o.list()
	if err != nil {
		return 0, err
	}
	if len(o.replay) == 0 {
		fmt.Printf("seed %d, %d steps a program, natively and on %s\n", o.seed, o.steps, o.platform)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &runner{options: o, programs: make(chan *program.Program), bar: newBar(total, o.duration), seen: map[string]bool{}, cancel: cancel}
	go r.feed(ctx, list)
	var workers sync.WaitGroup
	for range o.parallel {
		workers.Go(func() { r.work(ctx, places.pair()) })
	}
	workers.Wait()
	r.bar.stop()
	return r.reported, r.failed
}

// list returns the programs to run, one after another and nil in the end, and how many there are; 0 if
// that depends on time.
func (o options) list() (next func() *program.Program, total int, err error) {
	if len(o.replay) == 0 {
		seed := o.seed
		return func() *program.Program {
			if o.programs > 0 && seed-o.seed >= uint64(o.programs) {
				return nil
			}
			p := program.Generate(seed, o.steps, known.Filter(seed))
			seed++
			return p
		}, o.programs, nil
	}
	var all []*program.Program
	for _, name := range o.replay {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, 0, err
		}
		p, err := program.Parse(string(text))
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, p)
	}
	return func() (p *program.Program) {
		if len(all) > 0 {
			p, all = all[0], all[1:]
		}
		return p
	}, len(all), nil
}

// feed sends programs to workers until there are no more, or no more time.
func (r *runner) feed(ctx context.Context, next func() *program.Program) {
	defer close(r.programs)
	var end <-chan time.Time
	if r.duration > 0 {
		end = time.After(r.duration)
	}
	for p := next(); p != nil; p = next() {
		select {
		case r.programs <- p:
		case <-end:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (r *runner) work(ctx context.Context, p *pair) {
	defer func() {
		// What ends early says so, which is no news.
		if err := p.close(); ctx.Err() == nil {
			r.fail(err)
		}
	}()
	for prog := range r.programs {
		d, err := p.run(ctx, prog)
		reference := p.reference
		if err == nil && d != nil {
			err = r.found(ctx, p, d)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.fail(fmt.Errorf("program %d: %w", prog.Seed, err))
			return
		}
		if r.verbose {
			r.bar.print(narrate(prog, reference))
		}
		r.bar.done()
	}
}

// fail ends everything because of an error.
func (r *runner) fail(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = errors.Join(r.failed, err)
	r.cancel()
}

// found makes a difference small and reports it, if it is a new one.
func (r *runner) found(ctx context.Context, p *pair, d *difference) error {
	seed := d.program.Seed
	again, err := p.run(ctx, d.program)
	if err != nil {
		return err
	}
	note := ""
	if again == nil {
		note = "Run again it showed no difference.\n"
	} else if r.shrink {
		if d, err = p.shrink(ctx, again); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := d.kind() + "\n" + outline(d.program)
	if r.seen[key] || r.reported >= r.most {
		return nil
	}
	r.seen[key] = true
	r.reported++
	r.bar.found()
	text := d.program.String()
	r.bar.print(fmt.Sprintf("\ndifference %d, program %d, %v%s\n%s\n%s", r.reported, seed, d, note, text, goTest(d)))
	if r.save != "" {
		name := filepath.Join(r.save, fmt.Sprintf("seed-%d.txt", seed))
		if err := os.WriteFile(name, []byte(comment(d.String())+text), 0o644); err != nil {
			return err
		}
	}
	if r.reported == r.most {
		r.cancel()
	}
	return nil
}
