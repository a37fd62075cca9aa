package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sentrymm/test/syscalls/compare/known"
	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// A difference is the first one between two traces of a program.
type difference struct {
	program *program.Program
	step    int // the number of the step, from 1; 0 is the beginning
	// aspect is "result", or that of the view that differs, and process whose it is.
	aspect, process string
	// What was observed natively and in the other place.
	wanted, got []string
	// expected is the native trace, complete for each step.
	expected []moment
}

// A moment is what is known after a step.
type moment struct {
	result string
	views  map[string]trace.View
}

// kind is what two differences have in common that probably are the same one.
func (d *difference) kind() string {
	op := "begin"
	if d.step > 0 {
		op = d.program.Steps[d.step-1].Op.Name
	}
	return op + " " + d.aspect
}

// moments are a trace with all views of all steps, and without known differences of the platform.
func moments(platform string, p *program.Program, steps []trace.Step) []moment {
	var all []moment
	views := map[string]trace.View{}
	for i, s := range steps {
		if i > 0 && i <= len(p.Steps) {
			s.Result = known.Result(platform, p.Steps[i-1], s.Result)
		}
		views = maps.Clone(views)
		for _, v := range s.Views {
			views[v.Key()] = known.View(v)
		}
		all = append(all, moment{s.Result, views})
	}
	return all
}

// compare returns the first difference between two traces of a program, or nil. platform is the other one's.
func compare(platform string, p *program.Program, native, other []trace.Step) *difference {
	wanted, got := moments(platform, p, native), moments(platform, p, other)
	for i := range min(len(wanted), len(got)) {
		d := &difference{program: p, step: i, expected: wanted}
		if wanted[i].result != got[i].result {
			if i > 0 && i <= len(p.Steps) && incomparable(p, wanted, got, i) {
				return nil
			}
			d.aspect, d.wanted, d.got = "result", []string{wanted[i].result}, []string{got[i].result}
			return d
		}
		keys := maps.Clone(wanted[i].views)
		maps.Copy(keys, got[i].views)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			w, g := wanted[i].views[key], got[i].views[key]
			if !agree(w.Aspect, w.Lines, g.Lines) {
				d.process, d.aspect, _ = strings.Cut(key, " ")
				d.wanted, d.got = w.Lines, g.Lines
				return d
			}
		}
	}
	if len(wanted) != len(got) {
		d := &difference{program: p, step: min(len(wanted), len(got)) - 1, aspect: "end", expected: wanted}
		d.wanted, d.got = []string{fmt.Sprintf("%d steps", len(wanted)-1)}, []string{fmt.Sprintf("%d steps", len(got)-1)}
		return d
	}
	return nil
}

// incomparable reports whether results of a step differ, and nothing more can be said of what follows.
func incomparable(p *program.Program, wanted, got []moment, step int) bool {
	s := p.Steps[step-1]
	return known.Ends(s, wanted[step].result, got[step].result) ||
		apart(s, mapsBefore(p, wanted, step), mapsBefore(p, got, step), wanted[step].result)
}

// mapsBefore are the mappings, before a step, of whoever does it.
func mapsBefore(p *program.Program, all []moment, step int) []string {
	who := p.Steps[step-1].Actor
	if who.IsThread() {
		who = program.Main
	}
	return all[step-1].views[trace.View{Process: who.String(), Aspect: trace.Maps}.Key()].Lines
}

// String says what differs where.
func (d *difference) String() string {
	var b strings.Builder
	what := "begin"
	if d.step > 0 {
		what = d.program.Steps[d.step-1].String()
	}
	fmt.Fprintf(&b, "step %d of %d, %s: %s", d.step, len(d.program.Steps), what, d.aspect)
	if d.process != "" {
		fmt.Fprintf(&b, " of %s", d.process)
	}
	b.WriteByte('\n')
	for _, side := range []struct {
		name         string
		lines, other []string
	}{{"native", d.wanted, d.got}, {"sandbox", d.got, d.wanted}} {
		for _, line := range side.lines {
			mark := " "
			if !slices.Contains(side.other, line) {
				mark = "*"
			}
			fmt.Fprintf(&b, "  %-8s%s %s\n", side.name, mark, line)
		}
		if len(side.lines) == 0 {
			fmt.Fprintf(&b, "  %-8s  nothing\n", side.name)
		}
	}
	return b.String()
}
