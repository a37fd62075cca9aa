package main

import (
	"context"
	"errors"
	"fmt"

	"sentrymm/test/syscalls/compare/known"
	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// A pair runs programs in two places: natively, which is the reference, and somewhere else.
type pair struct {
	native, other target
	platform      string       // of the other one
	reference     []trace.Step // of the program that ran last, natively
}

// run runs a program in both places and returns the first difference, or nil.
func (p *pair) run(ctx context.Context, prog *program.Program) (*difference, error) {
	type result struct {
		steps []trace.Step
		err   error
	}
	natively := make(chan result, 1)
	go func() {
		steps, err := p.native.run(ctx, prog)
		natively <- result{steps, err}
	}()
	other, err := p.other.run(ctx, prog)
	reference := <-natively
	if err := errors.Join(wrap("native", reference.err), wrap("sandbox", err)); err != nil {
		return nil, err
	}
	p.reference = reference.steps
	return compare(p.platform, prog, reference.steps, other), nil
}

func wrap(where string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", where, err)
}

// shrink returns the difference of the smallest program that shows it. The error is of what kept
// shrinking from going on.
func (p *pair) shrink(ctx context.Context, d *difference) (*difference, error) {
	var broken error
	smallest := d
	// What comes after the difference is not needed for it.
	first := d.program.Clone()
	first.Steps = first.Steps[:max(d.step, 0)]
	fails := func(candidate *program.Program) bool {
		if broken != nil || !known.Together(candidate.Steps) {
			return false
		}
		var found *difference
		if found, broken = p.run(ctx, candidate); found == nil || found.kind() != d.kind() {
			return false
		}
		smallest = found
		return true
	}
	if fails(first) {
		program.Shrink(first, fails)
	}
	return smallest, broken
}

func (p *pair) close() error { return errors.Join(p.native.close(), p.other.close()) }
