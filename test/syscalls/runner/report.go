package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jstemmer/go-junit-report/v2/gtr"
	"github.com/jstemmer/go-junit-report/v2/junit"
)

// write writes a report to a file, or nowhere if there is none.
func (r *report) write(file string, to func(io.Writer) error) (err error) {
	if file == "" {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := to(f); err != nil {
		f.Close()
		return fmt.Errorf("%s: %w", file, err)
	}
	return f.Close()
}

// The JSON report.
type (
	jsonReport struct {
		OK       bool         `json:"ok"`
		Seconds  float64      `json:"seconds"`
		Problems []string     `json:"problems"`
		Targets  []jsonTarget `json:"targets"`
		Suites   []jsonCell   `json:"suites"`
	}
	jsonTarget struct {
		Name string `json:"name"`
		Down string `json:"down,omitempty"` // why no container comes up
	}
	jsonCell struct {
		Suite   string     `json:"suite"`
		Target  string     `json:"target"`
		Seconds float64    `json:"seconds"`
		Problem string     `json:"problem,omitempty"`
		Tests   []jsonTest `json:"tests"`
	}
	jsonTest struct {
		Name    string   `json:"name"`
		Result  verdict  `json:"result"`           // passed, failed, differs or skipped
		Why     string   `json:"why,omitempty"`    // if it failed or differs
		Known   *entry   `json:"known,omitempty"`  // if that is known
		Parent  bool     `json:"parent,omitempty"` // has subtests; not counted unless it failed or differs itself
		Seconds float64  `json:"seconds"`
		Native  []string `json:"native,omitempty"` // the transcripts, if they differ
		Here    []string `json:"here,omitempty"`
		Output  []string `json:"output,omitempty"` // if it failed, here or natively
	}
)

func (r *report) writeJSON(out io.Writer) error {
	j := jsonReport{OK: r.ok(), Seconds: r.elapsed.Seconds(), Problems: append([]string{}, r.problems...)}
	for _, t := range r.targets {
		j.Targets = append(j.Targets, jsonTarget{t.name, t.down})
	}
	for _, c := range r.inOrder() {
		cell := jsonCell{Suite: c.suite.name, Target: c.target.name, Seconds: c.record.elapsed.Seconds(), Problem: c.record.failure}
		for _, res := range c.results {
			cell.Tests = append(cell.Tests, res.json())
		}
		j.Suites = append(j.Suites, cell)
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(j)
}

func (r *result) json() jsonTest {
	j := jsonTest{Name: r.name, Result: r.verdict, Why: r.why, Known: r.known, Parent: r.parent}
	if r.here != nil {
		j.Seconds = r.here.elapsed.Seconds()
	}
	if r.wrong() {
		j.Output = r.output()
	}
	if said(r.native) != said(r.here) {
		if r.native != nil {
			j.Native = r.native.transcript
		}
		if r.here != nil {
			j.Here = r.here.transcript
		}
	}
	return j
}

// writeJUnit writes a suite of JUnit's for each suite on each target, and one for other problems.
// Known differences are skipped tests there: JUnit has no better word.
func (r *report) writeJUnit(out io.Writer) error {
	var all gtr.Report
	for _, c := range r.inOrder() {
		p := gtr.Package{Name: c.suite.name + "." + c.target.name, Duration: c.record.elapsed}
		for _, res := range c.results {
			if !res.parent || res.wrong() {
				p.Tests = append(p.Tests, res.junit(c.target))
			}
		}
		all.Packages = append(all.Packages, p)
	}
	var others []gtr.Test
	for i, problem := range r.problems {
		others = append(others, gtr.Test{Name: fmt.Sprintf("problem %d", i+1), Result: gtr.Fail, Output: []string{problem}})
	}
	if len(others) > 0 {
		all.Packages = append(all.Packages, gtr.Package{Name: "problems", Tests: others})
	}
	suites := junit.CreateFromReport(all, "")
	return suites.WriteXML(out)
}

func (r *result) junit(at *target) gtr.Test {
	t := gtr.Test{Name: r.name, Result: gtr.Pass}
	if r.here != nil {
		t.Duration = r.here.elapsed
	}
	switch {
	case r.known != nil:
		t.Result = gtr.Skip
		t.Output = []string{"known difference: " + r.known.Reason}
	case r.wrong() && at.judged():
		t.Result = gtr.Fail
		t.Output = []string{strings.TrimSuffix(string(r.verdict)+": "+r.why, ": ")}
		t.Output = append(t.Output, r.output()...)
		if diff := sideBySide(at.name, r.native, r.here); diff != "" {
			t.Output = append(t.Output, diff)
		}
	case r.wrong():
		t.Output = []string{strings.TrimSuffix(string(r.verdict)+": "+r.why, ": ")}
	case r.verdict == skipped:
		t.Result = gtr.Skip
		t.Output = r.native.output.lines()
	}
	return t
}
