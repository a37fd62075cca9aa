package main

import (
	"fmt"
	"slices"
)

// A verdict is how a test in a target compares with the same test natively.
type verdict string

const (
	passed  verdict = "passed"  // passes in both, and says the same
	failed  verdict = "failed"  // fails in the target, or did not end
	differs verdict = "differs" // does not fail, but not as natively either
	skipped verdict = "skipped" // skipped natively: there is nothing to compare with
)

// A result is the verdict on one test.
type result struct {
	name    string
	verdict verdict
	why     string // in a line, if there is something to say
	parent  bool   // has tests below it; it counts only for what it did itself
	known   *entry // what is known of it if it failed or differs
	native  *test  // either may be nil, but not both
	here    *test
}

// wrong reports whether the test failed or differs.
func (r *result) wrong() bool { return r.verdict == failed || r.verdict == differs }

// compare judges every test of a target. Natively, both records are the same one.
//
// A test that did not run has no verdict if one above it says why: it did not pass, and so did not come
// to this one; or if the whole record does.
func compare(native, here *record) []*result {
	var results []*result
	add := func(name string) {
		n, h := native.byName[name], here.byName[name]
		if h == nil && (here.failure != "" || notPassed(here.ancestor(name))) || n == nil && h.outcome != didFail && notPassed(native.ancestor(name)) {
			return
		}
		r := &result{name: name, native: n, here: h}
		r.parent = native.anyBelow(name, whatever) || here.anyBelow(name, whatever)
		r.verdict, r.why = judge(native, here, n, h)
		results = append(results, r)
	}
	for _, t := range native.order {
		add(t.name)
	}
	for _, t := range here.order {
		if native.byName[t.name] == nil {
			add(t.name)
		}
	}
	return results
}

func whatever(*test) bool { return true }

func notPassed(t *test) bool { return t != nil && t.outcome != didPass }

// judge is the verdict on a test that is n natively and h in the target. A test above one that failed fails
// with it, and is not counted for that.
func judge(native, here *record, n, h *test) (verdict, string) {
	switch {
	case h == nil && here.ancestor(n.name) == nil:
		return failed, "did not run"
	case h == nil:
		return differs, "runs natively, does not run here"
	case h.crash != "":
		return failed, h.crash
	case h.outcome != didPass && here.failsBelow(h):
		return passed, "a test below it failed"
	case h.outcome == didFail:
		return failed, ""
	case h.outcome == didNotEnd:
		return failed, "did not end"
	case n == nil:
		return differs, "does not run natively, runs here"
	case n.outcome == didFail && native.failsBelow(n):
		return passed, "natively a test below it failed"
	case n.outcome == didFail || n.outcome == didNotEnd:
		return differs, "fails natively"
	case n.outcome == didSkip:
		return skipped, ""
	case n.outcome != h.outcome:
		return differs, fmt.Sprintf("natively: %s, here: %s", n.outcome, h.outcome)
	case !slices.Equal(n.transcript, h.transcript):
		return differs, "the transcripts differ"
	}
	return passed, ""
}

// failsBelow reports whether a test below t failed, which fails t too.
func (r *record) failsBelow(t *test) bool {
	return r.anyBelow(t.name, func(below *test) bool { return below.outcome == didFail })
}
