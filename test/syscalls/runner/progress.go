package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	bar "github.com/jedib0t/go-pretty/v6/progress"
	"golang.org/x/sys/unix"
)

// A progress shows how far the run is: a bar on a terminal, and a line for each suite on a target.
type progress struct {
	out    io.Writer
	writer bar.Writer // nil if out is no terminal
	whole  *bar.Tracker

	mu      sync.Mutex
	running []string
}

func newProgress(out io.Writer, cells int) *progress {
	p := &progress{out: out}
	if !isTerminal(out) {
		return p
	}
	p.writer = bar.NewWriter()
	p.writer.SetOutputWriter(out)
	p.writer.SetMessageLength(40)
	p.writer.SetTrackerLength(30)
	p.writer.SetUpdateFrequency(100 * time.Millisecond)
	p.writer.Style().Visibility.Percentage = false
	p.whole = &bar.Tracker{Total: int64(cells), Message: "starting"}
	p.writer.AppendTracker(p.whole)
	go p.writer.Render()
	return p
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (p *progress) begin(c *cell) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = append(p.running, c.String())
	p.update(0)
}

func (p *progress) end(c *cell) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, name := range p.running {
		if name == c.String() {
			p.running = append(p.running[:i], p.running[i+1:]...)
			break
		}
	}
	line := fmt.Sprintf("%-22s %s (%.1fs)", c, c.counts(), c.record.elapsed.Seconds())
	if c.record.failure != "" {
		line += ": " + firstLine(c.record.failure)
	}
	p.say(line)
	p.update(1)
}

// down says that a target does not come up: none of its cells runs.
func (p *progress) down(t *target, cells int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say(fmt.Sprintf("%-22s %s", t.name, firstLine(t.down)))
	p.update(int64(cells))
}

func (p *progress) say(line string) {
	if p.writer != nil {
		p.writer.Log("%s", line)
		return
	}
	fmt.Fprintln(p.out, line)
}

func (p *progress) update(more int64) {
	if p.writer != nil {
		p.whole.UpdateMessage(strings.Join(p.running, ", "))
		p.whole.Increment(more)
	}
}

// stop takes the bar away. What is printed next stands below what was.
func (p *progress) stop() {
	if p.writer == nil {
		return
	}
	p.whole.MarkAsDone()
	p.writer.Stop()
	for p.writer.IsRenderInProgress() {
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *cell) String() string { return c.suite.name + " " + c.target.name }

// String has the numbers that are not zero, and always how many passed.
func (n counts) String() string {
	parts := []string{fmt.Sprintf("%d passed", n.passed)}
	for _, more := range []struct {
		n    int
		what string
	}{{n.failed, "failed"}, {n.differs, "differ"}, {n.known, "known"}, {n.skipped, "skipped"}} {
		if more.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", more.n, more.what))
		}
	}
	return strings.Join(parts, ", ")
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
