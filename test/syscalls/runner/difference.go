package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	udiff "github.com/aymanbagabas/go-udiff"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

const (
	// How many differences are shown in full, in all and below one top-level test. The others are
	// counted; with -v all are shown.
	maxShown     = 25
	maxShownEach = 3
	// How much of one is shown: lines, and their width.
	maxRows   = 40
	halfWidth = 56
	around    = 3 // lines that do not differ
)

// A difference is a test that is wrong, in one target or, in the same way, in several.
type difference struct {
	suite   *suite
	targets []string
	result  *result // in the first of them
}

// differences are what is wrong and not known, and what differs on an unmodified runsc. What fails
// natively comes first: it may be the cause of the rest.
func (r *report) differences() []*difference {
	var all []*difference
	same := map[string]*difference{}
	for _, c := range r.inOrder() {
		for _, res := range c.results {
			if !res.wrong() || res.known != nil {
				continue
			}
			key := strings.Join([]string{c.suite.name, res.name, string(res.verdict), res.why, said(res.here)}, "\x00")
			if d := same[key]; d != nil && c.target.name != native && d.targets[0] != native {
				d.targets = append(d.targets, c.target.name)
				continue
			}
			d := &difference{suite: c.suite, targets: []string{c.target.name}, result: res}
			same[key] = d
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b *difference) int { return boolOrder(a.isNative(), b.isNative()) })
	return all
}

func (d *difference) isNative() bool { return d.targets[0] == native }

// boolOrder puts true before false.
func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// family names the top-level test of a difference, where it differs.
func (d *difference) family() string {
	top, _, _ := strings.Cut(d.result.name, "/")
	return fmt.Sprintf("%s/%s on %s", d.suite.name, top, strings.Join(d.targets, ", "))
}

func printDifferences(out io.Writer, all []*difference, verbose bool) {
	shown, each := 0, map[string]int{}
	rest, order := map[string]*counts{}, []string(nil)
	for _, d := range all {
		family := d.family()
		if verbose || shown < maxShown && each[family] < maxShownEach {
			shown++
			each[family]++
			d.print(out)
			continue
		}
		if rest[family] == nil {
			rest[family] = &counts{}
			order = append(order, family)
		}
		if d.result.verdict == failed {
			rest[family].failed++
		} else {
			rest[family].differs++
		}
	}
	if len(order) == 0 {
		return
	}
	fmt.Fprintf(out, "\nNot shown (-v shows all):\n")
	for _, family := range order {
		fmt.Fprintf(out, "  %s: %d failed, %d differ\n", family, rest[family].failed, rest[family].differs)
	}
}

func (d *difference) print(out io.Writer) {
	res := d.result
	fmt.Fprintf(out, "\n%s: %s/%s on %s", strings.ToUpper(string(res.verdict)), d.suite.name, res.name, strings.Join(d.targets, ", "))
	if res.why != "" {
		fmt.Fprintf(out, ": %s", res.why)
	}
	fmt.Fprintln(out)
	for _, line := range res.output() {
		fmt.Fprintln(out, "   ", line)
	}
	if !d.isNative() {
		fmt.Fprint(out, sideBySide(strings.Join(d.targets, ", "), res.native, res.here))
	}
}

// output is what a test said that failed, in the target or else natively.
func (r *result) output() []string {
	for _, t := range []*test{r.here, r.native} {
		if t != nil && t.outcome != didPass && t.outcome != didSkip {
			return t.output.lines()
		}
	}
	return nil
}

// sideBySide shows where two transcripts differ, with some lines around it. It is empty where they are
// the same.
func sideBySide(target string, native, here *test) string {
	left, right := said(native), said(here)
	diff, err := udiff.ToUnifiedDiff("", "", left, udiff.Lines(left, right), around)
	if err != nil {
		return fmt.Sprintf("the transcripts cannot be compared: %v\n", err)
	}
	if len(diff.Hunks) == 0 {
		return ""
	}
	w := table.NewWriter()
	w.SetStyle(plain())
	w.AppendHeader(table.Row{"native", "", target})
	rows := 0
	for i, hunk := range diff.Hunks {
		if i > 0 || hunk.FromLine > 1 {
			w.AppendRow(table.Row{"...", "", "..."})
		}
		for _, row := range pair(hunk.Lines) {
			if rows++; rows <= maxRows {
				w.AppendRow(row)
			}
		}
	}
	if rows > maxRows {
		w.AppendRow(table.Row{fmt.Sprintf("... %d more lines", rows-maxRows), "", "..."})
	}
	return w.Render() + "\n"
}

// pair puts lines that stand for each other in one row.
func pair(lines []udiff.Line) []table.Row {
	var rows []table.Row
	var gone, new []string
	flush := func() {
		for i := range max(len(gone), len(new)) {
			row := table.Row{"", "!", ""}
			if i < len(gone) {
				row[0] = gone[i]
			}
			if i < len(new) {
				row[2] = new[i]
			}
			rows = append(rows, row)
		}
		gone, new = nil, nil
	}
	for _, l := range lines {
		line := text.WrapSoft(strings.TrimSuffix(l.Content, "\n"), halfWidth)
		switch l.Kind {
		case udiff.Delete:
			gone = append(gone, line)
		case udiff.Insert:
			new = append(new, line)
		default:
			flush()
			rows = append(rows, table.Row{line, "", line})
		}
	}
	flush()
	return rows
}

// said is a transcript as a text.
func said(t *test) string {
	if t == nil || len(t.transcript) == 0 {
		return ""
	}
	return strings.Join(t.transcript, "\n") + "\n"
}
