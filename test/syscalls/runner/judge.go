package main

import (
	"fmt"
	"slices"
	"time"
)

// A report is what a run found.
type report struct {
	suites   []*suite
	targets  []*target // those that were asked for
	cells    map[[2]string]*cell
	problems []string // in a line each: what fails the run, besides tests
	known    []*entry
	elapsed  time.Duration
}

// judge sums up, and holds the file of known differences against what was found.
func (r *runner) judge(elapsed time.Duration) *report {
	rep := &report{suites: r.suites, cells: r.cells, known: r.known, elapsed: elapsed}
	nothing := true
	for _, t := range r.targets {
		if t.name != native || slices.Contains(r.o.targets, native) || r.nativeFails() {
			rep.targets = append(rep.targets, t)
		}
		// Who asks for nothing but this target wants to know that nothing was run.
		if t.down != "" && !(t.isOptional() && len(r.o.targets) > 1) {
			rep.problems = append(rep.problems, t.name+": "+firstLine(t.down))
		}
	}
	for _, s := range r.suites {
		for _, t := range r.targets {
			if c := r.cells[[2]string{s.name, t.name}]; c != nil {
				nothing = nothing && len(c.record.order) == 0
				if c.record.failure != "" {
					rep.problems = append(rep.problems, fmt.Sprintf("%s on %s: %s", s.name, t.name, c.record.failure))
				}
			}
		}
	}
	if nothing && len(rep.problems) == 0 && r.o.shard.total == 1 {
		rep.problems = append(rep.problems, fmt.Sprintf("no test ran: none matches -run %q", r.o.pattern))
	}
	for _, e := range r.known {
		for _, problem := range r.disproofs(e) {
			rep.problems = append(rep.problems, fmt.Sprintf("%s: %q: %s", r.o.known, e.Test, problem))
		}
	}
	return rep
}

func (r *runner) nativeFails() bool {
	for _, s := range r.suites {
		c := r.cells[[2]string{s.name, native}]
		if c.record.failure != "" || c.record.anyFailed() {
			return true
		}
	}
	return false
}

// disproofs are all that this run shows to be wrong with an entry.
func (r *runner) disproofs(e *entry) []string {
	name, _ := e.split()
	partial := r.o.pattern != ""
	first := r.cells[[2]string{name, native}]
	if first == nil {
		if len(r.o.suites) > 0 || len(r.o.bins) > 0 {
			return nil // it may be one of those that were not asked for
		}
		return []string{fmt.Sprintf("there is no suite %s", name)}
	}
	if problem := e.missing(first, partial); problem != "" {
		return []string{problem}
	}
	var found []string
	for _, t := range r.targets[1:] {
		if c := r.cells[[2]string{name, t.name}]; c != nil && c.record.failure == "" {
			if problem := e.disproof(c, partial); problem != "" {
				found = append(found, problem)
			}
		}
	}
	return found
}

// counts are the numbers of a cell in the table.
type counts struct {
	passed, failed, differs, known, skipped int
}

func (c *cell) counts() counts {
	var n counts
	for _, r := range c.results {
		switch {
		case r.known != nil:
			n.known++
		case r.verdict == failed:
			n.failed++
		case r.verdict == differs:
			n.differs++
		case r.parent:
		case r.verdict == skipped:
			n.skipped++
		default:
			n.passed++
		}
	}
	return n
}

func (n *counts) add(more counts) {
	n.passed += more.passed
	n.failed += more.failed
	n.differs += more.differs
	n.known += more.known
	n.skipped += more.skipped
}

// ok reports whether all is as expected.
func (r *report) ok() bool {
	n := r.sum(func(t *target) bool { return t.judged() })
	return len(r.problems) == 0 && n.failed == 0 && n.differs == 0
}

// sum adds up the cells of targets.
func (r *report) sum(of func(*target) bool) counts {
	var n counts
	for _, c := range r.inOrder() {
		if of(c.target) {
			n.add(c.counts())
		}
	}
	return n
}

// inOrder are the cells of the targets that were asked for, by suite and then by target.
func (r *report) inOrder() []*cell {
	var cells []*cell
	for _, s := range r.suites {
		for _, t := range r.targets {
			if c := r.cells[[2]string{s.name, t.name}]; c != nil {
				cells = append(cells, c)
			}
		}
	}
	return cells
}
