package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// print shows the differences, the table, and in the last lines whether all is as expected.
func (r *report) print(out io.Writer, verbose bool) {
	if verbose {
		r.printKnown(out)
	}
	printDifferences(out, r.differences(), verbose)
	fmt.Fprintln(out)
	fmt.Fprintln(out, r.table())
	for _, t := range r.targets {
		if t.down != "" {
			fmt.Fprintf(out, "%s: %s\n", t.name, t.down)
		}
	}
	for _, problem := range r.problems {
		fmt.Fprintf(out, "PROBLEM: %s\n", problem)
	}
	n := r.sum(func(t *target) bool { return t.judged() })
	wrong := n.failed + n.differs + len(r.problems)
	if n.known > 0 {
		fmt.Fprintf(out, "%d known differences\n", n.known)
	}
	verdict := "all as expected"
	if wrong > 0 {
		verdict = fmt.Sprintf("NOT as expected: %d tests failed, %d differ, %d problems", n.failed, n.differs, len(r.problems))
	}
	fmt.Fprintf(out, "%s, in %v\n", verdict, r.elapsed.Round(100*time.Millisecond))
	fmt.Fprintf(out, "syscalls: %d passed, %d failed, %d skipped\n", n.passed, wrong, n.skipped)
}

// table has a row for each suite and a column for each target.
func (r *report) table() string {
	w := table.NewWriter()
	w.SetStyle(plain())
	header, sums := table.Row{"suite"}, table.Row{"all"}
	for _, t := range r.targets {
		header = append(header, t.name)
		sums = append(sums, r.sum(func(other *target) bool { return other == t }).cellText(t.down))
	}
	w.AppendHeader(header)
	for _, s := range r.suites {
		row := table.Row{s.name}
		for _, t := range r.targets {
			c := r.cells[[2]string{s.name, t.name}]
			switch {
			case c == nil:
				row = append(row, "-")
			case c.record.failure != "":
				row = append(row, c.counts().cellText("")+", PROBLEM")
			default:
				row = append(row, c.counts().cellText(""))
			}
		}
		w.AppendRow(row)
	}
	w.AppendFooter(sums)
	return w.Render()
}

func (n counts) cellText(down string) string {
	if down != "" {
		return "does not come up"
	}
	return n.String()
}

// plain is a style without a frame, which a log shows as it is.
func plain() table.Style {
	style := table.StyleDefault
	style.Options = table.Options{SeparateColumns: true, SeparateHeader: true, SeparateFooter: true}
	style.Format = table.FormatOptions{Header: text.FormatDefault, Footer: text.FormatDefault}
	return style
}

// printKnown lists the known differences and the skipped tests.
func (r *report) printKnown(out io.Writer) {
	for _, c := range r.inOrder() {
		for _, res := range c.results {
			switch {
			case res.known != nil:
				fmt.Fprintf(out, "known: %s/%s on %s: %s: %s\n", c.suite.name, res.name, c.target.name, res.why, res.known.Reason)
			case res.verdict == skipped:
				fmt.Fprintf(out, "skipped: %s/%s on %s: %s\n", c.suite.name, res.name, c.target.name, strings.Join(res.native.output.lines(), "; "))
			}
		}
	}
}
