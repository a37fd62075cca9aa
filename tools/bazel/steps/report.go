package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// An event is what test2json makes of what a test binary says.
type event struct {
	Action  string
	Test    string
	Output  string
	Elapsed float64
}

// A report is what became of the tests of one run.
type report struct {
	name  string
	tests []*testCase
	index map[string]*testCase
	loose bytes.Buffer // what no test said
	err   error        // how the binary ended, if not well
}

// A testCase is one test or subtest.
type testCase struct {
	name    string
	result  string // pass, fail, skip, or empty if it did not end
	seconds float64
	output  bytes.Buffer
}

// readEvents reads events until there are no more, and shows what the tests say on the way.
func readEvents(events io.Reader, text io.Writer, verbose bool) (*report, error) {
	r := &report{index: map[string]*testCase{}}
	s := shown{text: text, verbose: verbose, held: map[string]*bytes.Buffer{}}
	for decoder := json.NewDecoder(events); ; {
		var e event
		if err := decoder.Decode(&e); err != nil {
			s.unfinished(r.tests)
			if err == io.EOF {
				err = nil
			}
			return r, err
		}
		r.add(e)
		s.show(e)
	}
}

// shown writes what the tests say that do not pass, each top-level test's in one piece.
type shown struct {
	text    io.Writer
	verbose bool // everything, at once
	held    map[string]*bytes.Buffer
}

func (s *shown) show(e event) {
	top, _, inner := strings.Cut(e.Test, "/")
	switch {
	case e.Action == "output" && (s.verbose || e.Test == ""):
		if e.Output != "PASS\n" {
			io.WriteString(s.text, e.Output)
		}
	case e.Action == "output":
		if s.held[top] == nil {
			s.held[top] = &bytes.Buffer{}
		}
		s.held[top].WriteString(e.Output)
	case e.Action == "fail" && !inner:
		s.release(top)
	case (e.Action == "pass" || e.Action == "skip") && !inner:
		delete(s.held, top)
	}
}

func (s *shown) release(top string) {
	if said := s.held[top]; said != nil {
		s.text.Write(said.Bytes())
		delete(s.held, top)
	}
}

// unfinished shows what those tests said that did not come to their end.
func (s *shown) unfinished(tests []*testCase) {
	for _, c := range tests {
		s.release(c.name)
	}
}

func (r *report) add(e event) {
	if e.Test == "" {
		if e.Action == "output" {
			r.loose.WriteString(e.Output)
		}
		return
	}
	c := r.index[e.Test]
	if c == nil {
		c = &testCase{name: e.Test}
		r.index[e.Test] = c
		r.tests = append(r.tests, c)
	}
	switch e.Action {
	case "output":
		// The lines that frame a test say nothing that the report does not.
		if line := strings.TrimLeft(e.Output, " "); !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			c.output.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		c.result, c.seconds = e.Action, e.Elapsed
	}
}

func (r *report) count(result string) int {
	n := 0
	for _, c := range r.tests {
		if c.result == result {
			n++
		}
	}
	return n
}

func (r *report) summary() string {
	s := fmt.Sprintf("%s: %d passed, %d failed, %d skipped", r.name, r.count("pass"), r.count("fail"), r.count("skip"))
	if n := r.count(""); n > 0 {
		s += fmt.Sprintf(", %d did not end", n)
	}
	return s
}
