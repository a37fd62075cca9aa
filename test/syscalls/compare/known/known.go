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
	// Platform is the one that has the difference, "" if all have.
	Platform string
	// Leads reports whether a step shows the difference, or may. Such steps are not generated.
	Leads func(program.Step) bool
	// Side, if not nil, is for what two sorts of steps show together and neither alone. It returns of which sort
	// a step is, 1 or 2, or 0 if of none, and what it is about, such as a file. For each of these a program
	// has steps of one sort.
	Side func(program.Step) (about string, side int)
	// Ends, if not nil, reports whether what a step returned natively and elsewhere differs because of this. From
	// there on the two do not compare.
	Ends func(step program.Step, native, other string) bool
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

// Result is a result without the differences that a platform has.
func Result(platform string, s program.Step, result string) string {
	for _, d := range All {
		if d.Result != nil && (d.Platform == "" || d.Platform == platform) {
			result = d.Result(s, result)
		}
	}
	return result
}

// Ends reports whether the results of a step differ in a known way, after which all else does.
func Ends(s program.Step, native, other string) bool {
	for _, d := range All {
		if d.Ends != nil && d.Ends(s, native, other) {
			return true
		}
	}
	return false
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
