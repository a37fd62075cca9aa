package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	// The progress bar.
	"github.com/jedib0t/go-pretty/v6/progress"
	"golang.org/x/sys/unix"

	"sentrymm/runsc-integration/sandbox"
	"sentrymm/test/bench/sample"
)

// An item is what is measured by running one program. Its rows are what comes of that.
type item struct {
	group string
	name  string
	slow  bool // not in a quick run
	often int  // pairs in a round, but the first; 0: one
	// run measures the rows, or all that the item has if rows is empty. It may measure more of them.
	run func(ctx context.Context, t *target, rows []string) ([]sample.Result, error)
}

// loadGroups are the groups of the load program's rows. Each is run in a container of its own: that is as finely as
// targets take turns.
var loadGroups = []struct {
	name  string
	slow  bool
	often int
	times time.Duration // as long as other rows: beside faults, some storms do two or three operations in 0.2 seconds
}{
	{"single", false, 4, 2}, {"fault", false, 1, 3}, {"third", false, 1, 1}, {"apart", true, 1, 3}, {"io", false, 1, 1}, {"scale", false, 2, 1},
	{"maps-10", false, 1, 1}, {"maps-1000", true, 1, 1}, {"maps-60000", true, 1, 1},
}

func groupNames() []string {
	var names []string
	for _, g := range loadGroups {
		names = append(names, g.name)
	}
	return append(names, withinGroup, "cost", "hostops", "program")
}

// A plan is what one round measures.
type plan struct {
	items   []item
	targets *targets
	has     map[string]map[string]bool // by item, the rows that came of it
}

func newPlan(c config, t *targets) (*plan, error) {
	p := &plan{targets: t, has: map[string]map[string]bool{}}
	for _, g := range loadGroups {
		p.items = append(p.items, item{g.name, g.name, g.slow, g.often, func(ctx context.Context, on *target, rows []string) ([]sample.Result, error) {
			if len(rows) == 0 {
				rows = []string{g.name}
			}
			return runLoad(ctx, on, t, rows, g.times*c.rowTime, warmUp*c.rowTime)
		}})
	}
	if c.measuresWithin() {
		p.items = append(p.items, withinItem(c, t))
	}
	p.items = append(p.items, costItems(t)...)
	p.items = append(p.items, programItems(c, t)...)
	for _, name := range c.rows {
		if !slices.Contains(groupNames(), name) {
			return nil, fmt.Errorf("there are no rows %s, only %s", name, strings.Join(groupNames(), ", "))
		}
	}
	p.items = slices.DeleteFunc(p.items, func(i item) bool {
		return c.rows != nil && !slices.Contains(c.rows, i.group) || c.rows == nil && c.quick && i.slow
	})
	return p, nil
}

// warmUp is how long a container makes system calls before it is measured, in rows' times. For 0.8 to 0.9 seconds after it came up, a call takes 11 to 20 µs on
// systrap, and 5 to 8 from then on: a row would be measured now before that and now after it, depending on which were measured before it.
// (A quick run does not wait for so long.)
const warmUp = 6

// runLoad runs some of the load program's rows, each for d.
func runLoad(ctx context.Context, on *target, t *targets, rows []string, d, warm time.Duration) ([]sample.Result, error) {
	args := []string{"-rows", strings.Join(rows, ","), "-for", d.String()}
	if on.s != nil {
		args = append(args, "-warm", warm.String())
	}
	out, err := on.run(ctx, sandbox.Program(t.root, t.load, args...), nil, nil)
	var results []sample.Result
	for _, line := range out {
		var r sample.Result
		if err := jsonUnmarshal([]byte(line), &r); err != nil {
			return results, fmt.Errorf("the load program said %q: %w", line, err)
		}
		results = append(results, r)
	}
	return results, err
}

// A turn is one item on one target.
type turn struct {
	item item
	on   *target
	rows []string // empty: all
	pair int      // those of a pair have the same, and those of an item follow each other
}

func (t turn) String() string { return t.item.name + ", " + t.on.column() }

// turns are those of a round, pair by pair. The first round measures everything,
// the others only what still is to be told.
func (p *plan) turns(round int, m *measured) [][]turn {
	needed := map[cell]bool{}
	for _, v := range m.judge() {
		for _, c := range v.needs {
			needed[c] = true
		}
	}
	var all [][]turn
	for _, it := range p.items {
		rows := slices.Sorted(maps.Keys(p.has[it.name]))
		often := max(it.often, 1)
		for pair := max(0, (round-1)*often+1); pair <= round*often; pair++ { // one pair in the first round
			var ts []turn
			for _, on := range p.order(pair) {
				t := turn{item: it, on: on, pair: pair}
				for _, row := range rows {
					if needed[cell{row, on.column()}] {
						t.rows = append(t.rows, strings.TrimPrefix(row, "storm-"))
					}
				}
				t.rows = slices.Compact(slices.Sorted(slices.Values(t.rows)))
				if round == 0 || len(t.rows) > 0 {
					ts = append(ts, t)
				}
			}
			if len(ts) > 0 {
				all = append(all, ts)
			}
		}
	}
	return all
}

// order is the order of targets in a pair. Native is the first, so that what all of them read is in memory then. Which of ours
// and stock is next changes from pair to pair.
func (p *plan) order(pair int) []*target {
	ts := []*target{p.targets.native}
	for _, pr := range p.targets.pairs {
		if pair%2 == 0 {
			ts = append(ts, pr.ours, pr.stock)
		} else {
			ts = append(ts, pr.stock, pr.ours)
		}
	}
	return ts
}

// run does rounds until the time is over or everything can be told, and adds what they measure to m. It returns an
// error if it was interrupted.
func (p *plan) run(ctx context.Context, c config, m *measured) error {
	begun := time.Now()
	w := newProgress()
	defer w.Stop()
	took := map[string]time.Duration{} // by item and target, the last time
	for round := 0; c.rounds == 0 || round < c.rounds; round++ {
		turns := p.turns(round, m)
		tracker := &progress.Tracker{Message: fmt.Sprintf("round %d", round+1), Total: int64(len(turns))}
		w.AppendTracker(tracker)
		did := false
		for _, ts := range turns {
			var expected time.Duration
			for _, turn := range ts {
				expected += took[turn.String()]
			}
			tracker.Increment(1)
			if round > 0 && time.Since(begun)+expected > c.limit {
				continue
			}
			did = true
			for _, turn := range ts {
				t := time.Now()
				tracker.UpdateMessage(fmt.Sprintf("round %d: %s", round+1, turn))
				results, err := turn.item.run(ctx, turn.on, turn.rows)
				if ctx.Err() != nil {
					return errors.New("interrupted: the report has what was measured before")
				}
				if err != nil {
					results = append(results, sample.Result{Row: turn.item.name, Error: err.Error()})
				}
				p.add(turn.item, results)
				m.add(turn.pair, turn.on.column(), results)
				took[turn.String()] = time.Since(t)
			}
		}
		tracker.MarkAsDone()
		if !did {
			break
		}
	}
	return nil
}

// add notes which rows the item has.
func (p *plan) add(it item, results []sample.Result) {
	if p.has[it.name] == nil {
		p.has[it.name] = map[string]bool{}
	}
	for _, r := range results {
		p.has[it.name][r.Row] = true
	}
}

// newProgress shows nothing where there is no terminal.
func newProgress() progress.Writer {
	w := progress.NewWriter()
	w.SetOutputWriter(os.Stderr)
	w.SetUpdateFrequency(200 * time.Millisecond)
	w.SetMessageLength(60)
	if _, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS); err == nil {
		go w.Render()
	}
	return w
}

func jsonUnmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// programItems are whole programs, timed from outside, and the host mappings they had.
func programItems(c config, t *targets) []item {
	items := []item{{"program", "program/empty", false, 4, func(ctx context.Context, on *target, _ []string) ([]sample.Result, error) {
		return timed(ctx, on, "program/empty", sandbox.Program(t.root, t.load, "-exit"))
	}}}
	dir, err := helloProgram(c.out)
	for _, p := range []struct {
		name  string
		slow  bool
		often int
		args  []string
	}{
		{"python3", false, 4, []string{"python3", "-c", "pass"}},
		{"java", true, 1, []string{"java", "-Xmx512m", "-version"}},
		{"go-build", true, 1, []string{"go", "build", "-o", "/tmp/sentrymm-bench-hello", "."}},
		{"stress-vm", true, 1, []string{"stress-ng", "--vm", "1", "--vm-bytes", "64m", "--vm-ops", "20000"}},
		{"stress-mmap", true, 1, []string{"stress-ng", "--mmap", "1", "--mmap-bytes", "4m", "--mmap-ops", "20"}},
		{"stress-mremap", true, 1, []string{"stress-ng", "--mremap", "1", "--mremap-bytes", "4m", "--mremap-ops", "200"}},
		{"stress-mprotect", true, 1, []string{"stress-ng", "--mprotect", "1", "--mprotect-ops", "2000"}},
		{"stress-fork", true, 1, []string{"stress-ng", "--fork", "1", "--fork-ops", "200"}},
	} {
		path := lookPath(p.args[0])
		if path == "" || p.name == "go-build" && err != nil {
			continue // not installed
		}
		b := sandbox.Machine("/", append([]string{path}, p.args[1:]...)...)
		if p.name == "go-build" {
			b.Dir = dir
		}
		name := "program/" + p.name
		items = append(items, item{"program", name, p.slow, p.often, func(ctx context.Context, on *target, _ []string) ([]sample.Result, error) {
			return timed(ctx, on, name, b)
		}})
	}
	return items
}

// lookPath prefers what is installed for all to what a user has put before it, which may be a script.
func lookPath(name string) string {
	for _, dir := range []string{"/usr/bin", "/usr/local/go/bin"} {
		if path := filepath.Join(dir, name); unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// helloProgram makes a small Go program to build.
func helloProgram(out string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(out, "hello"))
	if err != nil {
		return "", err
	}
	err = os.MkdirAll(dir, 0o755)
	for name, text := range map[string]string{
		"go.mod":  "module hello\n\ngo 1.24\n",
		"main.go": "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"hello\") }\n",
	} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir, err
}

// timed runs a program and measures how long that takes.
func timed(ctx context.Context, on *target, name string, b sandbox.Bundle) ([]sample.Result, error) {
	begun := time.Now()
	_, err := on.run(ctx, b, nil, nil)
	r := sample.Result{Row: name, Ops: 1, Seconds: time.Since(begun).Seconds()}
	if err != nil {
		r.Error = err.Error()
	}
	return []sample.Result{r}, nil
}
