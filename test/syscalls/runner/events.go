package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// How a test ended.
type outcome string

const (
	didPass   outcome = "pass"
	didFail   outcome = "fail"
	didSkip   outcome = "skip"
	didNotEnd outcome = "" // still running, as far as was seen
)

// A test is what one test of a suite did in one place.
type test struct {
	name       string // TestX, or TestX/sub
	outcome    outcome
	transcript []string // what it said by kit.Say: the lines that begin with "| "
	output     excerpt  // everything else
	elapsed    time.Duration

	paused bool   // waits for the end of tests that are not parallel
	dying  bool   // a panic has ended it, and is about to end the program
	crash  string // how the program ended while it was running; it is not run again then

	line string // is not complete yet
}

// A record is what one suite did in one place.
type record struct {
	order    []*test
	byName   map[string]*test
	ended    []*test // in the order in which they did
	complete bool    // the program came to its end
	failure  string
	elapsed  time.Duration
}

func newRecord() *record { return &record{byName: map[string]*test{}} }

func (r *record) get(name string) *test {
	t := r.byName[name]
	if t == nil {
		t = &test{name: name}
		r.byName[name] = t
		r.order = append(r.order, t)
	}
	return t
}

// ancestor is the nearest test above name that ran, or nil.
func (r *record) ancestor(name string) *test {
	for name = parent(name); name != ""; name = parent(name) {
		if t := r.byName[name]; t != nil {
			return t
		}
	}
	return nil
}

// anyBelow reports whether a test below name has a property.
func (r *record) anyBelow(name string, is func(*test) bool) bool {
	prefix := name + "/"
	for _, t := range r.order {
		if strings.HasPrefix(t.name, prefix) && is(t) {
			return true
		}
	}
	return false
}

// An event is a line of test2json.
type event struct {
	Action  string
	Test    string
	Output  string
	Elapsed float64
}

// read adds the events of a stream.
func (r *record) read(events io.Reader) error {
	for lines := json.NewDecoder(events); ; {
		var e event
		if err := lines.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("test2json: %w", err)
		}
		r.add(e)
	}
	for _, t := range r.order {
		t.flush()
	}
	return nil
}

func (r *record) add(e event) {
	if e.Test == "" {
		if e.Action == "pass" || e.Action == "fail" || e.Action == "skip" {
			r.complete = true
		}
		return
	}
	t := r.get(e.Test)
	switch e.Action {
	case "pass", "fail", "skip":
		t.outcome = outcome(e.Action)
		t.elapsed = time.Duration(e.Elapsed * float64(time.Second))
		r.ended = append(r.ended, t)
	case "pause":
		t.paused = true
	case "cont":
		t.paused = false
	case "output":
		t.say(e.Output)
	}
}

// say takes a piece of output; a long line comes in several.
func (t *test) say(piece string) {
	t.line += piece
	if strings.HasSuffix(piece, "\n") {
		t.flush()
	}
}

func (t *test) flush() {
	line := strings.TrimSuffix(t.line, "\n")
	t.line = ""
	text := strings.TrimLeft(line, " ")
	switch {
	case line == "":
	case isFraming(line):
		// Followed by the event of its end, unless the program ends first.
		t.dying = strings.HasPrefix(line, "--- FAIL: ")
	case strings.HasPrefix(text, "| "):
		t.transcript = append(t.transcript, strings.TrimRight(text[2:], " "))
	default:
		t.output.add(line)
	}
}

// isFraming reports whether a line is the testing package's own, and says what events say too.
func isFraming(line string) bool {
	for _, prefix := range []string{"=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME ", "=== ATTR ", "--- PASS: ", "--- FAIL: ", "--- SKIP: "} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// How many lines an excerpt keeps of the beginning and of the end.
const excerptLines = 30

// An excerpt is the beginning and the end of a text: a crash says at its beginning what it is.
type excerpt struct {
	head, tail []string
	leftOut    int
}

func (x *excerpt) add(line string) {
	if len(x.head) < excerptLines {
		x.head = append(x.head, line)
		return
	}
	x.tail = append(x.tail, line)
	if len(x.tail) > excerptLines {
		x.tail = x.tail[1:]
		x.leftOut++
	}
}

func (x *excerpt) lines() []string {
	lines := append([]string(nil), x.head...)
	if x.leftOut > 0 {
		lines = append(lines, fmt.Sprintf("... %d lines left out ...", x.leftOut))
	}
	return append(lines, x.tail...)
}
