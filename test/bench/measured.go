package main

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"sentrymm/test/bench/sample"
)

// measured is all that was measured, as raw.json has it.
type measured struct {
	Machine machine `json:"machine"`
	Quick   bool    `json:"quick"`
	// Order is the order in which rows came first.
	Order []string `json:"order"`
	// Rows has the results by row, by column, by pair.
	Rows map[string]map[string][]sample.Result `json:"rows"`
	// Errors are what could not be measured.
	Errors []string `json:"errors"`
}

// A machine is what was measured on, and with what.
type machine struct {
	When     time.Time `json:"when"`
	Kernel   string    `json:"kernel"`
	CPU      string    `json:"cpu"`
	CPUs     int       `json:"cpus"`
	Memory   uint64    `json:"memory"` // bytes
	Go       string    `json:"go"`
	Revision string    `json:"revision"`
	GVisor   string    `json:"gvisor"`
	Awake    bool      `json:"awake"` // idle processors did not sleep
}

func newMeasured(c config) *measured {
	return &measured{Machine: thisMachine(), Quick: c.quick, Rows: map[string]map[string][]sample.Result{}}
}

func thisMachine() machine {
	m := machine{When: time.Now().UTC().Truncate(time.Second), CPUs: runtime.NumCPU(), Go: runtime.Version()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		m.Memory = s.Totalram * uint64(s.Unit)
	}
	m.Revision = output("git", "describe", "--always", "--dirty", "--abbrev=12")
	m.GVisor = output("go", "list", "-m", "-f", "{{.Version}}", "gvisor.dev/gvisor")
	return m
}

func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// add keeps results of a column. Pairs come in order; a row that a pair lacks stays empty there. What fails again and
// again is said once.
func (m *measured) add(pair int, column string, results []sample.Result) {
	for _, r := range results {
		if r.Error != "" {
			if e := column + ", " + r.Row + ": " + r.Error; !slices.ContainsFunc(m.Errors, func(s string) bool { return strings.HasPrefix(s, column+", "+r.Row+": ") }) {
				m.Errors = append(m.Errors, e)
			}
			continue
		}
		if m.Rows[r.Row] == nil {
			m.Rows[r.Row] = map[string][]sample.Result{}
			m.Order = append(m.Order, r.Row)
		}
		rs := m.Rows[r.Row][column]
		for len(rs) < pair {
			rs = append(rs, sample.Result{})
		}
		m.Rows[r.Row][column] = append(rs, r)
	}
}

func (m *measured) write(dir string) error {
	raw, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "raw.json"), raw, 0o644); err != nil {
		return err
	}
	return m.report(dir)
}

// columns are those that have results.
func (m *measured) columns() []string {
	have := map[string]bool{}
	for _, row := range m.Rows {
		for c := range row {
			have[c] = true
		}
	}
	order := []string{"ours-systrap", "stock-systrap", "ours-ptrace", "stock-ptrace", native}
	rest := slices.DeleteFunc(slices.Sorted(maps.Keys(have)), func(c string) bool { return slices.Contains(order, c) })
	return append(slices.DeleteFunc(order, func(c string) bool { return !have[c] }), rest...)
}

// platforms are those with results.
func (m *measured) platforms() []string {
	var ps []string
	for _, c := range m.columns() {
		if p, ok := strings.CutPrefix(c, ours+"-"); ok {
			ps = append(ps, p)
		}
	}
	return ps
}

// A metric is a number of a result, and whether more of it is better.
type metric struct {
	name string
	more bool
	of   func(r sample.Result) float64
}

var (
	metricMean = latency("mean", func(h *hdrhistogram.Histogram) float64 { return h.Mean() })
	metricP50  = quantile("p50", 50)
	metricP90  = quantile("p90", 90)
	metricP99  = quantile("p99", 99)
	metricP999 = quantile("p99.9", 99.9)
	// As somebody sees it who comes each millisecond, whatever happened to who came before.
	metricPaced = metric{"p99 paced", false, func(r sample.Result) float64 { return ofHistogram(r.PacedHistogram(), p99) }}
	metricMax   = latency("max", func(h *hdrhistogram.Histogram) float64 { return float64(h.Max()) })
	metricRate  = metric{"rate", true, func(r sample.Result) float64 { return r.Rate() }}
	metricTime  = metric{"time", false, func(r sample.Result) float64 { return 1e9 * r.Seconds / positive(float64(r.Ops)) }}
	metricValue = metric{"value", false, func(r sample.Result) float64 { return positive(r.Value) }}
)

// positive is NaN for what was not measured.
func positive(v float64) float64 {
	if v <= 0 {
		return math.NaN()
	}
	return v
}

func latency(name string, of func(h *hdrhistogram.Histogram) float64) metric {
	return metric{name, false, func(r sample.Result) float64 { return ofHistogram(r.Histogram(), of) }}
}

func p99(h *hdrhistogram.Histogram) float64 { return float64(h.ValueAtQuantile(99)) }

func ofHistogram(h *hdrhistogram.Histogram, of func(h *hdrhistogram.Histogram) float64) float64 {
	if h == nil || h.TotalCount() == 0 {
		return math.NaN()
	}
	return of(h)
}

func quantile(name string, q float64) metric {
	return latency(name, func(h *hdrhistogram.Histogram) float64 { return float64(h.ValueAtQuantile(q)) })
}

// values are a metric's in a column, by round; NaN where a round has none.
func (m *measured) values(row, column string, of metric) []float64 {
	var vs []float64
	for _, r := range m.Rows[row][column] {
		vs = append(vs, of.of(r))
	}
	return vs
}

// A spread is what several pairs say.
type spread struct {
	median, min, max float64
	pairs            int

	// low and high are where the true median is, with 95 percent confidence; all there is, if these are less than
	// six values.
	low, high float64

	// values is how many there are: one for each pair, or for each two, see inTurns.
	values int
}

// compare compares two cells pair by pair, or if they are of different targets two by two, see inTurns.
func (m *measured) compare(a, b cell, of metric) spread {
	rs := m.relative(a, b, of)
	if a.column == b.column {
		return spreadOf(rs)
	}
	return spreadInTurns(rs)
}

// spreadInTurns is the spread of ratios two by two. As long as these are one or two, it reaches as far as single pairs do: one container that is slow for reasons
// of its own makes half of a value.
func spreadInTurns(rs []float64) spread {
	each, s := spreadOf(rs), spreadOf(inTurns(rs))
	s.pairs = each.pairs
	if s.values < 3 {
		s.min, s.max, s.low, s.high = each.min, each.max, each.low, each.high
	}
	return s
}

// ratios compares two lists pair by pair; it has NaN for pairs that one of them lacks.
func ratios(a, b []float64) []float64 {
	var rs []float64
	for i := range min(len(a), len(b)) {
		r := a[i] / b[i]
		if math.IsInf(r, 0) {
			r = math.NaN()
		}
		rs = append(rs, r)
	}
	return rs
}

// inTurns takes each pair together with the next, in which the other one was the first: who comes first, right after what was measured
// natively, takes some percent longer. Where there is only one of the two they are left out, unless that is all there is.
func inTurns(rs []float64) []float64 {
	var both []float64
	for i := 0; i+1 < len(rs); i += 2 {
		if r := math.Sqrt(rs[i] * rs[i+1]); !math.IsNaN(r) {
			both = append(both, r)
		}
	}
	if len(both) == 0 {
		return rs
	}
	return both
}

func spreadOf(vs []float64) spread {
	vs = slices.DeleteFunc(slices.Clone(vs), func(v float64) bool { return math.IsNaN(v) })
	if len(vs) == 0 {
		nan := math.NaN()
		return spread{median: nan, min: nan, max: nan, low: nan, high: nan}
	}
	slices.Sort(vs)
	n := len(vs)
	k := beyondMedian(n)
	return spread{median: (vs[(n-1)/2] + vs[n/2]) / 2, min: vs[0], max: vs[n-1], pairs: n, low: vs[k], high: vs[n-1-k], values: n}
}

// beyondMedian returns how many of the least of n values lie below the median with a confidence of 97.5 percent; and
// so many of the greatest above. Each value lies on either side of it with the same probability, so their number has a
// binomial distribution.
func beyondMedian(n int) int {
	p := math.Exp2(-float64(n)) // that exactly k values are below
	k, sum := 0, p
	for ; sum <= 0.025; sum += p {
		p *= float64(n-k) / float64(k+1)
		k++
	}
	return max(k-1, 0)
}

// wideSpread is the relation of the largest ratio to the smallest beyond which a median is no statement.
const wideSpread = 1.5

// beyond says whether all of s lies beyond limit, on one side of it, by that much.
func (s spread) beyond(limit, margin float64) bool {
	return s.high*margin <= limit || s.low >= limit*margin
}

// wide says whether s is too wide to tell on which side of limit the truth is. One or two values look closer together than they are.
func (s spread) wide(limit float64) bool {
	if s.values < 3 {
		return !s.beyond(limit, wideSpread)
	}
	return s.high > wideSpread*s.low && !s.beyond(limit, 1)
}

// decided says whether more pairs would hardly change what s says of limit.
func (s spread) decided(limit float64) bool {
	return s.pairs >= 10 && s.beyond(limit, 1) || s.values >= 3 && s.beyond(limit, clearMargin) || s.pairs >= 3 && s.beyond(limit, 2) || s.pairs >= mostPairs
}

// clearMargin is how far three values have to lie beyond a limit, so that more of them would hardly change what they say.
const clearMargin = 1.25

// mostPairs are enough in any case.
const mostPairs = 80
