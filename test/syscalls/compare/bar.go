package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
	"golang.org/x/sys/unix"
)

// A bar shows how far a run is. Where there is no terminal it is silent.
type bar struct {
	mu      sync.Mutex
	writer  progress.Writer // nil without a terminal
	tracker *progress.Tracker
	begun   time.Time
	limit   time.Duration
	count   int
	differ  int
}

// newBar is a bar of so many programs, or of so much time.
func newBar(programs int, limit time.Duration) *bar {
	b := &bar{begun: time.Now(), limit: limit}
	if _, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS); err != nil {
		return b
	}
	b.tracker = &progress.Tracker{Total: int64(programs)}
	if programs == 0 {
		b.tracker.Total, b.tracker.Units = int64(limit.Seconds()), progress.Units{Formatter: func(s int64) string { return (time.Duration(s) * time.Second).String() }}
	}
	b.writer = progress.NewWriter()
	b.writer.SetOutputWriter(os.Stderr)
	b.writer.SetAutoStop(false)
	b.writer.SetUpdateFrequency(200 * time.Millisecond)
	b.writer.AppendTracker(b.tracker)
	go b.writer.Render()
	return b
}

// done counts a program.
func (b *bar) done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	if b.writer == nil {
		return
	}
	if passed := time.Since(b.begun); b.tracker.Units.Formatter != nil {
		b.tracker.SetValue(int64(passed.Seconds()))
	} else {
		b.tracker.SetValue(int64(b.count))
	}
	b.tracker.UpdateMessage(b.summary())
}

// found counts a difference.
func (b *bar) found() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.differ++
}

// print writes text above the bar.
func (b *bar) print(text string) {
	if b.writer != nil {
		b.writer.Log("%s", text)
		return
	}
	fmt.Println(text)
}

func (b *bar) summary() string {
	return fmt.Sprintf("%d programs, %.0f a minute, differences: %d", b.count, float64(b.count)/time.Since(b.begun).Minutes(), b.differ)
}

// stop ends the bar and prints what was done.
func (b *bar) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.writer != nil {
		b.tracker.MarkAsDone()
		b.writer.Stop()
		for b.writer.IsRenderInProgress() {
			time.Sleep(10 * time.Millisecond)
		}
	}
	fmt.Println(b.summary())
}
