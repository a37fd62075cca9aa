package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

const (
	// A suite that crashes is started again without the test that did it, but not forever. So a test
	// with several below it that do is left out, that others are not lost with it.
	maxStarts  = 12
	maxHangs   = 2
	maxCrashes = 3

	// What the start of a container may add to a suite's time before it is ended from outside.
	startGrace = 20 * time.Second
)

// An executor runs suites on targets and reads what they say.
type executor struct {
	test2json string // the program
	pattern   string // for -test.run
	timeout   time.Duration
	env       []string
	shard     shard
}

// suite runs a suite on a target and returns what became of each test. A program that ends in the
// middle of a test is started again without this test, so that the others have their results. The
// error is ctx's.
func (x *executor) suite(ctx context.Context, s *suite, at *target) (*record, error) {
	rec := newRecord()
	began := time.Now()
	defer func() { rec.elapsed = time.Since(began) }()
	leftOut := x.shard.others(s.tests)
	for starts, hangs := 1, 0; ; starts++ {
		one, end := x.start(ctx, s, at, leftOut)
		if ctx.Err() != nil {
			return rec, ctx.Err()
		}
		if end.hung {
			hangs++
		}
		culprits := one.culprits()
		switch ended := one.complete && end.err == nil; {
		case ended && end.status != 0 && !one.anyFailed():
			rec.failure = fmt.Sprintf("no test failed, but exit status %d; it said at the end:\n%s", end.status, end.said())
		case !ended && len(culprits) == 0:
			rec.failure = fmt.Sprintf("ended outside of a test: %s; it said at the end:\n%s", end.summary(), end.said())
		case !ended:
			one.crash(culprits, end)
		}
		rec.merge(one)
		if one.complete || rec.failure != "" {
			return rec, nil
		}
		rec.giveUp()
		leftOut = append(leftOut, rec.done()...)
		if x.allIn(s, leftOut) {
			return rec, nil
		}
		if starts == maxStarts || hangs == maxHangs {
			rec.failure = fmt.Sprintf("given up after %d starts, %d out of time: tests are missing", starts, hangs)
			return rec, nil
		}
	}
}

// An ending is how a program ended.
type ending struct {
	status int
	hung   bool
	err    error
	tail   tail // the end of what it said, of all its tests
}

// said is the text without the marks of test2json.
func (e *ending) said() string {
	return strings.TrimSpace(strings.ReplaceAll(string(e.tail), "\x16", ""))
}

func (e *ending) summary() string {
	switch {
	case e.hung:
		return "out of time"
	case e.err != nil:
		return e.err.Error()
	}
	return fmt.Sprintf("exit status %d", e.status)
}

// start runs the program of a suite once, without the tests in leftOut.
func (x *executor) start(ctx context.Context, s *suite, at *target, leftOut []string) (*record, *ending) {
	args := []string{"-test.v=test2json", "-test.count=1", "-test.timeout=" + x.timeout.String()}
	if x.pattern != "" {
		args = append(args, "-test.run="+x.pattern)
	}
	if len(leftOut) > 0 {
		args = append(args, "-test.skip="+skipPattern(leftOut))
	}
	end := &ending{}
	rec := newRecord()
	convert := exec.Command(x.test2json, "-t", "-p", s.name)
	convert.Stderr = os.Stderr
	in, err1 := convert.StdinPipe()
	out, err2 := convert.StdoutPipe()
	for _, err := range []error{err1, err2, convert.Start()} {
		if err != nil {
			end.err = err
			return rec, end
		}
	}
	read := make(chan error, 1)
	go func() { read <- rec.read(out) }()

	bounded, cancel := context.WithTimeout(ctx, x.timeout+startGrace)
	defer cancel()
	end.status, end.err = at.run(bounded, s.bin, args, x.env, io.MultiWriter(in, &end.tail))
	in.Close()
	readErr := <-read
	waitErr := convert.Wait()
	end.hung = bounded.Err() != nil || strings.Contains(end.said(), "panic: test timed out after")
	for _, err := range []error{readErr, waitErr} {
		if end.err == nil {
			end.err = err
		}
	}
	return rec, end
}

// skipPattern is for -test.skip: an expression for exactly these tests, and what is below them.
func skipPattern(names []string) string {
	var alternatives []string
	for _, name := range names {
		var elements []string
		for element := range strings.SplitSeq(name, "/") {
			elements = append(elements, "^"+regexp.QuoteMeta(element)+"$")
		}
		alternatives = append(alternatives, strings.Join(elements, "/"))
	}
	return strings.Join(alternatives, "|")
}

// allIn reports whether no top-level test is left to run.
func (x *executor) allIn(s *suite, leftOut []string) bool {
	done := map[string]bool{}
	for _, name := range leftOut {
		done[name] = true
	}
	for _, name := range s.tests {
		if !done[name] {
			return false
		}
	}
	return true
}

// tail is a writer that keeps the last part of what is written.
type tail []byte

const tailBytes = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if extra := len(*t) - tailBytes; extra > 0 {
		*t = append((*t)[:0], (*t)[extra:]...)
	}
	return len(p), nil
}
