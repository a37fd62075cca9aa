package main

import (
	"fmt"
	"strings"
)

// culprits are the tests that were running when the program ended: of each family the youngest.
func (r *record) culprits() []*test {
	running := func(t *test) bool { return t.outcome == didNotEnd && !t.paused }
	var found []*test
	for _, t := range r.order {
		if running(t) && !r.anyBelow(t.name, running) {
			found = append(found, r.panicked(t))
		}
	}
	return found
}

// panicked is the test whose panic ended the program while t was running. A panic ends tests one by
// one, from the inside to the outside, and all but the outermost have failed by then.
func (r *record) panicked(t *test) *test {
	if !t.dying {
		return t
	}
	for i := len(r.ended) - 1; i >= 0; i-- {
		inner := r.ended[i]
		if inner.outcome != didFail || !strings.HasPrefix(inner.name, t.name+"/") {
			break
		}
		t = inner
	}
	return t
}

// crash notes for each culprit how the program ended, which is not run again.
func (r *record) crash(culprits []*test, end *ending) {
	for _, t := range culprits {
		t.outcome = didFail
		t.crash = "the program ended in it: " + end.summary()
		for _, line := range end.since(t.name) {
			t.output.add(line)
		}
	}
}

// since are the last lines, as far as they come after the beginning of a test. Some are of other tests:
// a crash is not always told in the name of the test that it happens in.
func (e *ending) since(name string) []string {
	text := e.said()
	if _, after, found := strings.Cut(text, "=== RUN   "+name+"\n"); found {
		text = after
	}
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); !isFraming(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// giveUp ends tests that have too many below them in which the program ended.
func (r *record) giveUp() {
	crashes := map[string]int{}
	for _, t := range r.order {
		if t.crash != "" {
			crashes[parent(t.name)]++
		}
	}
	for name, n := range crashes {
		if t := r.byName[name]; t != nil && n >= maxCrashes && t.crash == "" {
			t.outcome = didFail
			t.crash = fmt.Sprintf("given up: the program ended in %d tests right below it", n)
		}
	}
}

// parent is the name of the test that a test is part of, or empty.
func parent(name string) string { return name[:max(strings.LastIndexByte(name, '/'), 0)] }

// done are the tests that need no other start: the top-level ones that have ended, and the ones that
// ended the program.
func (r *record) done() []string {
	var names []string
	for _, t := range r.order {
		if t.crash != "" || parent(t.name) == "" && t.outcome != didNotEnd {
			names = append(names, t.name)
		}
	}
	return names
}

// merge adds what a later start of the same program did. A test that ran again replaces what was known of
// it, but one that ended the program stays as it was.
func (r *record) merge(later *record) {
	r.complete = later.complete
	for _, t := range later.order {
		known := r.byName[t.name]
		if known == nil {
			r.order = append(r.order, t)
		}
		if known == nil || known.crash == "" {
			r.byName[t.name] = t
		}
	}
	for i, t := range r.order {
		r.order[i] = r.byName[t.name]
	}
}

func (r *record) anyFailed() bool {
	for _, t := range r.order {
		if t.outcome == didFail {
			return true
		}
	}
	return false
}
