// Package known lists the differences between Linux and the sentry that are known and stay: those
// that do not come from the memory manager, and those that its documentation names. Programs do not
// do what leads there, or what they observe is compared without it.
//
// Everything that is not compared is on this list, and nowhere else.
package known

import (
	"strings"

	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// A Difference is one of them.
type Difference struct {
	Name   string
	Reason string // what differs, and where it comes from
	// Leads reports whether a step shows the difference, or may. Such steps are not generated.
	Leads func(program.Step) bool
	// Result, if not nil, returns the result of a step without the difference.
	Result func(step program.Step, result string) string
	// Line, if not nil, returns a line of a view without the difference. An empty line is left out.
	Line func(aspect, line string) string
}

// Wanted reports whether a step leads to none of the differences.
func Wanted(s program.Step) bool {
	for _, d := range All {
		if d.Leads != nil && d.Leads(s) {
			return false
		}
	}
	return true
}

// Result is a result without the differences.
func Result(s program.Step, result string) string {
	for _, d := range All {
		if d.Result != nil {
			result = d.Result(s, result)
		}
	}
	return result
}

// View is a view without the differences.
func View(v trace.View) trace.View {
	var lines []string
	for _, line := range v.Lines {
		for _, d := range All {
			if d.Line != nil && line != "" {
				line = d.Line(v.Aspect, line)
			}
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	if v.Aspect == trace.Pages {
		lines = coalesce(lines)
	}
	v.Lines = lines
	return v
}

// coalesce makes one range of those that have become alike, as the engine does.
func coalesce(lines []string) []string {
	var all []string
	for _, line := range lines {
		where, what, _ := strings.Cut(line, " ")
		if n := len(all); n > 0 {
			before, beforeWhat, _ := strings.Cut(all[n-1], " ")
			start, end := program.CutRange(before)
			if from, to := program.CutRange(where); what == beforeWhat && from == end {
				all[n-1] = start + "-" + to + " " + what
				continue
			}
		}
		all = append(all, line)
	}
	return all
}
