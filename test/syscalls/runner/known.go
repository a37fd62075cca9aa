package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// An entry is a known difference: a test that is expected to fail or to differ in some targets.
type entry struct {
	// The suite, and the test's name: "mincore/TestResidency/anonymous". With "/..." at its end the
	// test and all tests below it; then at least one of them has to differ.
	Test string `json:"test"`
	// The targets; "runsc" are all that run our runsc.
	Targets []string `json:"targets"`
	Reason  string   `json:"reason"`
	// Whether an unmodified runsc differs from Linux in this too: "differs", "same" (as Linux) or "unknown".
	Upstream string `json:"upstream"`
}

// allOurs is the name for all targets with our runsc.
const allOurs = "runsc"

func readKnown(file string) ([]*entry, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var entries []*entry
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&entries); err != nil {
		return nil, fmt.Errorf("%s: %w: want a list of objects with test, targets, reason and upstream", file, err)
	}
	if d.More() {
		return nil, fmt.Errorf("%s: there is something after the list", file)
	}
	var problems []error
	seen := map[string]bool{}
	for _, e := range entries {
		if err := e.check(); err != nil {
			problems = append(problems, fmt.Errorf("%s: %q: %w", file, e.Test, err))
		}
		for _, t := range e.Targets {
			if seen[t+" "+e.Test] {
				problems = append(problems, fmt.Errorf("%s: %q: two entries for target %s", file, e.Test, t))
			}
			seen[t+" "+e.Test] = true
		}
	}
	return entries, errors.Join(problems...)
}

func (e *entry) check() error {
	suite, name := e.split()
	switch {
	case suite == "" || !strings.HasPrefix(name, "Test"):
		return errors.New("test: want SUITE/TestNAME, as in mincore/TestResidency/anonymous")
	case strings.TrimSpace(e.Reason) == "":
		return errors.New("without a reason: say why it differs")
	case len(e.Targets) == 0:
		return errors.New("targets: name at least one")
	case !slices.Contains([]string{"differs", "same", "unknown"}, e.Upstream):
		return fmt.Errorf("upstream is %q: want differs, same or unknown", e.Upstream)
	}
	for _, t := range e.Targets {
		if t != allOurs && !slices.Contains(sandboxed, t) {
			return fmt.Errorf("no target %q: there are %s and %s", t, allOurs, strings.Join(sandboxed, ", "))
		}
	}
	return nil
}

// split takes the suite off the name. A suite's name may have slashes in it.
func (e *entry) split() (suite, name string) {
	i := strings.Index(e.Test, "/Test")
	if i < 0 {
		return "", ""
	}
	return e.Test[:i], e.Test[i+1:]
}

// wide reports whether the entry stands for a test and all below it, and which.
func (e *entry) wide() (name string, wide bool) {
	_, name = e.split()
	return strings.CutSuffix(name, "/...")
}

// covers reports whether the entry speaks of a test, in whatever target.
func (e *entry) covers(suite, test string) bool {
	name, wide := e.wide()
	s, _ := e.split()
	return s == suite && (test == name || wide && strings.HasPrefix(test, name+"/"))
}

// expects reports whether the entry says that its tests differ in a target.
func (e *entry) expects(target string) bool {
	switch {
	case slices.Contains(e.Targets, target):
		return true
	case target == stock:
		return e.Upstream == "differs"
	}
	return slices.Contains(sandboxed, target) && slices.Contains(e.Targets, allOurs)
}

// explain gives every result that is wrong the entry that expects it.
func (c *cell) explain(entries []*entry) {
	for _, r := range c.results {
		for _, e := range entries {
			if r.wrong() && e.expects(c.target.name) && e.covers(c.suite.name, r.name) {
				r.known = e
			}
		}
	}
}

// disproof says what is wrong with an entry, as far as this cell shows it, or is empty. Tests that did
// not run, or are skipped on this machine, show nothing; nor does a part of the tests of a wide entry.
func (e *entry) disproof(c *cell, partial bool) string {
	_, wide := e.wide()
	if wide && partial {
		return ""
	}
	ran, wrong := false, false
	for _, r := range c.results {
		if e.covers(c.suite.name, r.name) {
			ran = ran || r.verdict != skipped
			wrong = wrong || r.wrong()
		}
	}
	on := c.target.name
	switch {
	case !ran:
		return ""
	case e.expects(on) && !wrong && on == stock:
		return "upstream: it does not differ on stock: say \"same\""
	case e.expects(on) && !wrong:
		return "no longer differs on " + on + ": remove it, or name the targets in which it differs"
	case on == stock && e.Upstream == "same" && wrong:
		return "upstream: it differs on stock too: say \"differs\""
	}
	return ""
}

// missing says that an entry's test does not exist, or is empty. c is the native cell of its suite.
func (e *entry) missing(c *cell, partial bool) string {
	name, _ := e.wide()
	top, _, sub := strings.Cut(name, "/")
	if !slices.Contains(c.suite.tests, top) {
		return "there is no such test"
	}
	if !sub || partial || c.record.byName[top] == nil {
		return ""
	}
	if c.record.byName[name] != nil || notPassed(c.record.ancestor(name)) {
		return ""
	}
	if c.record.anyBelow(name, whatever) {
		return ""
	}
	return "there is no such test"
}
