package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// A cell is one suite on one target.
type cell struct {
	suite   *suite
	target  *target
	record  *record
	results []*result // after the comparison with the native cell
}

// A runner has all that a run needs, and what it found out.
type runner struct {
	o         options
	x         executor
	suites    []*suite
	targets   []*target // native is the first; it runs even if it is not asked for
	guestRoot string
	known     []*entry
	folder    string // for files of this run
	progress  *progress

	// By suite and target.
	cells map[[2]string]*cell
}

// prepare finds and builds what is not given.
func prepare(ctx context.Context, o options, folder string, out io.Writer) (*runner, error) {
	r := &runner{o: o, folder: folder, cells: map[[2]string]*cell{}}
	r.x = executor{test2json: o.test2json, pattern: o.pattern, timeout: o.timeout, shard: o.shard}
	if o.long {
		r.x.env = append(r.x.env, "KIT_LONG=1")
	}
	r.targets = []*target{{name: native}}
	for _, name := range append(slices.Clone(usualTargets), stock) {
		if name != native && slices.Contains(o.targets, name) {
			t := newTarget(name, o.runscs)
			r.targets = append(r.targets, &t)
		}
	}
	if err := r.find(ctx); err != nil {
		return nil, err
	}
	var err error
	if r.known, err = readKnown(r.o.known); err != nil {
		return nil, err
	}
	if err := eachOf(o.jobs, r.suites, func(s *suite) error { return s.list(ctx) }); err != nil {
		return nil, err
	}
	r.progress = newProgress(out, len(r.suites)*len(r.targets))
	return r, nil
}

// find fills in the programs that the command line leaves open. The repository is needed, and the go
// command, only if there are any.
func (r *runner) find(ctx context.Context) error {
	repository := ""
	needRepository := func() (err error) {
		if repository == "" {
			repository, err = findRepository()
		}
		return err
	}
	var err error
	if len(r.o.bins) > 0 {
		r.suites, err = given(r.o.bins, r.o.suites)
	} else if err = needRepository(); err == nil {
		if r.suites, err = discover(ctx, repository, r.o.suites); err == nil {
			err = build(ctx, repository, r.suites)
		}
		if r.o.known == "" {
			r.o.known = filepath.Join(repository, suitesFolder, "known.json")
		}
	}
	if err != nil {
		return err
	}
	if r.x.test2json == "" {
		r.x.test2json = filepath.Join(r.folder, "test2json")
		if _, err := goCommand(ctx, r.folder, "build", "-o", r.x.test2json, "cmd/test2json"); err != nil {
			return fmt.Errorf("no test2json (name one with -test2json): %w", err)
		}
	}
	return r.findSandboxes(ctx, needRepository, &repository)
}

// findSandboxes fills in what targets other than native need.
func (r *runner) findSandboxes(ctx context.Context, needRepository func() error, repository *string) error {
	for _, t := range r.targets[1:] {
		if t.runsc == "" {
			if err := needRepository(); err != nil {
				return err
			}
			all := map[string]string{}
			for _, b := range builds {
				all[b] = filepath.Join(*repository, "build", b)
			}
			t.runsc = newTarget(t.name, all).runsc
		}
		if _, err := os.Stat(t.runsc); err != nil {
			return fmt.Errorf("target %s: %w: `make syscalls` builds it; by hand: build/runsc-integration build%s", t.name, err, buildFlag[t.name])
		}
		var err error
		if t.runsc, err = filepath.Abs(t.runsc); err != nil {
			return err
		}
	}
	if len(r.targets) == 1 {
		return nil
	}
	r.guestRoot = filepath.Join(r.folder, "guest")
	guest := filepath.Join(r.guestRoot, "guest")
	if err := os.Mkdir(r.guestRoot, 0o755); err != nil {
		return err
	}
	if r.o.guest != "" {
		data, err := os.ReadFile(r.o.guest)
		if err != nil {
			return fmt.Errorf("-guest: %w", err)
		}
		return os.WriteFile(guest, data, 0o755)
	}
	if err := needRepository(); err != nil {
		return err
	}
	_, err := goCommand(ctx, *repository, "build", "-trimpath", "-o", guest, "./runsc-integration/guest")
	return err
}

// buildFlag is what runsc-integration build needs to be told for a target.
var buildFlag = map[string]string{validate: " -tags mmvalidate", stock: " -stock"}

// all runs every suite natively, and then on the other targets, long ones first. Meanwhile it finds
// out which of those come up: one that hangs takes its time.
func (r *runner) all(ctx context.Context) error {
	defer r.progress.stop()
	probed := make(chan error, 1)
	go func() {
		probed <- eachOf(len(r.targets), r.targets, func(t *target) error {
			return t.probe(ctx, r.guestRoot, r.o.startLimit)
		})
	}()
	var first []*cell
	for _, s := range r.suites {
		first = append(first, r.cell(s, r.targets[0]))
	}
	run := func(c *cell) (err error) {
		r.progress.begin(c)
		if c.record, err = r.x.suite(ctx, c.suite, c.target); err != nil {
			return err
		}
		c.results = compare(r.cells[[2]string{c.suite.name, native}].record, c.record)
		c.explain(r.known)
		r.progress.end(c)
		return nil
	}
	err := eachOf(r.o.jobs, first, run)
	if err = errors.Join(err, <-probed); err != nil {
		return err
	}
	var rest []*cell
	for _, t := range r.targets[1:] {
		if t.down != "" {
			r.progress.down(t, len(r.suites))
			continue
		}
		for _, s := range r.suites {
			rest = append(rest, r.cell(s, t))
		}
	}
	slices.SortStableFunc(rest, func(a, b *cell) int { return cmp.Compare(r.nativeTime(b), r.nativeTime(a)) })
	return eachOf(r.o.jobs, rest, run)
}

func (r *runner) nativeTime(c *cell) time.Duration {
	return r.cells[[2]string{c.suite.name, native}].record.elapsed
}

func (r *runner) cell(s *suite, t *target) *cell {
	c := &cell{suite: s, target: t}
	r.cells[[2]string{s.name, t.name}] = c
	return c
}

// eachOf does something for each of the items, jobs at a time. It begins no other one after an error.
func eachOf[T any](jobs int, items []T, do func(T) error) error {
	next := make(chan T)
	failed := make(chan struct{})
	var once sync.Once
	errs := make([]error, jobs)
	var workers sync.WaitGroup
	for i := range jobs {
		workers.Go(func() {
			for item := range next {
				if err := do(item); err != nil {
					errs[i] = err
					once.Do(func() { close(failed) })
					return
				}
			}
		})
	}
	for _, item := range items {
		select {
		case next <- item:
			continue
		case <-failed:
		}
		break
	}
	close(next)
	workers.Wait()
	return errors.Join(errs...)
}
