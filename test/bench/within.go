package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"sentrymm/test/bench/sample"
)

// The rows within/ are those of fault/ as the memory manager sees them: each fault from the end of the one before to its own, on a runsc with the build tag
// mmtimes. Each has another, with the same faults less what they took in the memory manager or waited for its locks: what is left is the way to
// the application and back, and the host. So the two show what a memory manager that takes no time and makes nobody wait would have.
const (
	withinGroup = "within"
	without     = "-without"
)

// withinStorms are the storms whose faults have goals.
var withinStorms = []string{"populate-munmap-64m", "fixed-64k", "mmap-munmap-64k", "munmap-1g", "mprotect-64m", "dontneed-64m", "fork", "maps-reader", "read-512m"}

// withinPlatform is the only platform with such goals.
const withinPlatform = "systrap"

// measuresWithin returns whether the rows within are wanted.
func (c config) measuresWithin() bool {
	wanted := slices.Contains(c.rows, withinGroup) || c.rows == nil && !c.quick
	return wanted && slices.Contains(c.platforms, withinPlatform)
}

// A timesTarget is ours with the build tag mmtimes, which logs to a folder.
type timesTarget struct {
	*target
	logs string
}

func newTimesTarget(c config) (*timesTarget, error) {
	logs, err := os.MkdirTemp("", "sentrymm-times-")
	if err != nil {
		return nil, err
	}
	t, err := newTarget(times, c.times, withinPlatform, "--debug-log="+logs+"/")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(logs))
	}
	return &timesTarget{t, logs}, nil
}

func (t *timesTarget) close() {
	t.s.Close()
	os.RemoveAll(t.logs)
}

// withinItem measures the rows within, each in a container of its own, when it is the turn of ours.
func withinItem(c config, t *targets) item {
	return item{withinGroup, withinGroup, true, 1, func(ctx context.Context, on *target, rows []string) ([]sample.Result, error) {
		if on.name != ours || on.platform != withinPlatform {
			return nil, nil
		}
		var results []sample.Result
		for _, storm := range withinStorms {
			row := withinGroup + "/" + storm
			if len(rows) != 0 && !slices.Contains(rows, row) && !slices.Contains(rows, row+without) {
				continue
			}
			_, err := runLoad(ctx, t.times.target, t, []string{"fault/" + storm}, withinTimes*c.rowTime, warmUp*c.rowTime)
			fs, ferr := t.times.faults() // what there is of a run that failed is not to be among the next one's
			if err = errors.Join(err, ferr); err != nil {
				return results, err
			}
			results = append(results, fs.all.Result(row, 0), fs.without.Result(row+without, 0))
		}
		return results, nil
	}}
}

// withinTimes is how many times as long as others these rows are measured.
const withinTimes = 3

// insideFaults are what is measured of a thread that touches pages one after the other, faultStride apart.
type insideFaults struct {
	all, without *sample.Recorder

	// page is the last one that was touched, and sumAll and sumWithout are the faults since: on the way to the next one the thread may fault elsewhere, too,
	// where last is the last one.
	page, last         uint64
	sumAll, sumWithout time.Duration
}

const (
	// faultStride is what lies between two pages of the load program's faulter.
	faultStride = 2 << 20

	// longPause is how long it takes at most from one to the next, without the memory manager's time, if the program did not do something else meanwhile.
	longPause = 50 * time.Millisecond
)

// add adds a fault at page.
func (fs *insideFaults) add(page uint64, all, without time.Duration) {
	fs.sumAll += all
	fs.sumWithout += without
	switch {
	case page == fs.page+faultStride:
		if fs.sumWithout < longPause {
			fs.all.Add(fs.sumAll)
			fs.without.Add(fs.sumWithout)
		}
	case page != fs.last+faultStride: // elsewhere
		fs.last = page
		return
	}
	// The next one of those before, or the second one of others.
	fs.page, fs.last, fs.sumAll, fs.sumWithout = page, page, 0, 0
}

// faults reads the logs, and removes them. It returns the faults of the thread that has the most: that is the one that is measured, and does nothing
// else.
func (t *timesTarget) faults() (*insideFaults, error) {
	files, err := filepath.Glob(filepath.Join(t.logs, "*"))
	if err != nil {
		return nil, err
	}
	threads := map[string]*insideFaults{}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		err = addFaults(threads, f)
		if err = errors.Join(err, f.Close(), os.Remove(file)); err != nil {
			return nil, err
		}
	}
	var most *insideFaults
	for _, fs := range threads {
		if most == nil || fs.all.Count() > most.all.Count() {
			most = fs
		}
	}
	if most == nil {
		return nil, errors.New("the log has no times of faults: was runsc built with -tags mmtimes?")
	}
	return most, nil
}

// timesLine is a line of the log: the thread, and its faults.
var timesLine = regexp.MustCompile(`\[ *([^\]]+)\] mmtimes (\{.*\})$`)

// addFaults adds the faults that log has to those of their threads.
func addFaults(threads map[string]*insideFaults, log io.Reader) error {
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadString('\n')
		if match := timesLine.FindStringSubmatch(strings.TrimSuffix(line, "\n")); match != nil {
			var times struct {
				Pages        []uint64
				All, Without []time.Duration
			}
			if err := json.Unmarshal([]byte(match[2]), &times); err != nil {
				return fmt.Errorf("times of faults: %w: %s", err, line)
			}
			fs := threads[match[1]]
			if fs == nil {
				fs = &insideFaults{all: sample.NewRecorder(), without: sample.NewRecorder()}
				threads[match[1]] = fs
			}
			for i := range min(len(times.Pages), len(times.All), len(times.Without)) {
				fs.add(times.Pages[i], times.All[i], times.Without[i])
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
