package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sentrymm/test/bench/sample"
)

// took is a result whose operations all took that long.
func took(row string, d time.Duration) sample.Result {
	r := sample.NewRecorder()
	for range 100 {
		r.Add(d)
	}
	return r.Result(row, 100*d)
}

func newTestMeasured() *measured {
	return &measured{Rows: map[string]map[string][]sample.Result{}}
}

func TestRatiosAreOfPairs(t *testing.T) {
	// Drift hits both of a pair alike: it cancels out, and medians of each side alone would not show that.
	s := ratios([]float64{1, 10, 100}, []float64{2, 20, 200})
	require.Equal(t, spread{median: 0.5, min: 0.5, max: 0.5, pairs: 3, low: 0.5, high: 0.5}, s)
	s = ratios([]float64{1, math.NaN(), 3}, []float64{1, 1, 1, 1})
	require.Equal(t, spread{median: 2, min: 1, max: 3, pairs: 2, low: 1, high: 3}, s, "a round without a result makes no pair")
	require.True(t, math.IsNaN(ratios(nil, nil).median))
}

// A pause that a thread meets once in a hundred operations is what most of those meet who do not wait for each other.
func TestPacedLatenciesCountPauses(t *testing.T) {
	r := sample.NewRecorder()
	for range 200 {
		r.Add(100 * time.Microsecond)
	}
	r.Add(60 * time.Millisecond)
	res := r.Result("row", time.Second)
	require.InDelta(t, 1e5, metricP99.of(res), 1e3)
	require.InDelta(t, 58e6, metricPaced.of(res), 1e6)
}

// Many pairs say where the median is although single ones lie far apart.
func TestMoreCertainWithMorePairs(t *testing.T) {
	// Tables of confidence intervals for medians: of the sorted values 1..n, these two.
	for n, want := range map[int][2]float64{1: {1, 1}, 5: {1, 5}, 6: {1, 6}, 8: {1, 8}, 9: {2, 8}, 15: {4, 12}, 20: {6, 15}, 25: {8, 18}} {
		var vs []float64
		for i := range n {
			vs = append(vs, float64(n-i))
		}
		s := spreadOf(vs)
		require.Equal(t, want, [2]float64{s.low, s.high}, "%d pairs", n)
	}
	vs := []float64{0.5, 2}
	for range 14 {
		vs = append(vs, 0.9)
	}
	require.Equal(t, holds, newVerdict("", "", metricMean, spreadOf(vs), 1).Result)
	require.Equal(t, tooWide, newVerdict("", "", metricMean, spreadOf(vs[:4]), 1).Result)
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name string
		of   metric
		s    spread
		want string
	}{
		{"below", metricMean, spread{0.9, 0.8, 0.95, 5, 0.8, 0.95}, holds},
		{"above", metricMean, spread{1.2, 1.1, 1.3, 5, 1.1, 1.3}, fallsShort},
		{"around, close together", metricMean, spread{0.99, 0.9, 1.1, 5, 0.9, 1.1}, holds},
		{"around, far apart", metricMean, spread{0.99, 0.5, 2, 5, 0.5, 2}, tooWide},
		{"far apart, and all of it below", metricMean, spread{0.1, 0.01, 0.9, 5, 0.01, 0.9}, holds},
		{"more is better", metricRate, spread{1.2, 1.1, 1.3, 5, 1.1, 1.3}, holds},
		{"more is better, and there is less", metricRate, spread{0.8, 0.7, 0.9, 5, 0.7, 0.9}, fallsShort},
	} {
		require.Equal(t, c.want, newVerdict("", "", c.of, c.s, 1).Result, c.name)
	}
}

func TestEveryGoalFindsItsRows(t *testing.T) {
	m := newTestMeasured()
	for _, column := range []string{"ours-systrap", "stock-systrap"} {
		for _, row := range []string{"fault/quiet", "fault/populate-munmap-64m", "fault/munmap-1g", "fault/fork", "maps-10/populate-munmap-64m",
			"single/getppid", "single/fixed-anon-over-anon-64k", "third/munmap-1g"} {
			m.add(0, column, []sample.Result{took(row, time.Millisecond)})
		}
		for _, row := range []string{"program/empty", "storm-fault/fork", "scale/mincore/1", "scale/mincore/2"} {
			m.add(0, column, []sample.Result{{Row: row, Ops: 1, Seconds: 1}})
		}
		for _, row := range []string{"cost/peak-fixed-populate-1g", "cost/rss-mappings-1", "cost/host-mappings-1"} {
			m.add(0, column, []sample.Result{{Row: row, Value: 1}})
		}
	}
	found := map[string]bool{}
	for _, v := range m.judge() {
		found[v.Goal] = true
	}
	for _, g := range goals {
		require.True(t, found[g.text], g.text)
	}
}

func TestRunsTogetherHaveAllPairs(t *testing.T) {
	run := func(ours, stock time.Duration) *measured {
		m := newTestMeasured()
		m.add(0, "ours-systrap", []sample.Result{took("single/getppid", ours)})
		m.add(0, "stock-systrap", []sample.Result{took("single/getppid", stock)})
		return m
	}
	all := together([]*measured{run(1000, 1000), run(2000, 1000), run(9000, 3000)})
	s := ratios(all.values("single/getppid", "ours-systrap", metricMean), all.values("single/getppid", "stock-systrap", metricMean))
	require.Equal(t, 3, s.pairs)
	require.InDelta(t, 2, s.median, 0.01)
	require.InDelta(t, 1, s.min, 0.01)
	require.InDelta(t, 3, s.max, 0.01)

	dir := t.TempDir()
	require.NoError(t, run(1000, 1000).write(dir))
	require.NoError(t, summary([]string{dir, dir}))
	require.Error(t, summary([]string{filepath.Join(dir, "nothing")}))
}

func TestReportsSayWhatWasMeasured(t *testing.T) {
	m := newTestMeasured()
	for round := range 2 {
		m.add(round, "ours-systrap", []sample.Result{took("fault/fork", 3*time.Microsecond), {Row: "storm-fault/fork", Ops: 10, Seconds: 1}})
		m.add(round, "stock-systrap", []sample.Result{took("fault/fork", time.Microsecond), {Row: "storm-fault/fork", Ops: 10, Seconds: 1}})
	}
	m.add(1, native, []sample.Result{{Row: "fault/fork", Error: "it <broke>"}})
	dir := t.TempDir()
	require.NoError(t, m.write(dir))
	md, err := os.ReadFile(filepath.Join(dir, "report.md"))
	require.NoError(t, err)
	require.Contains(t, string(md), "| fork | p99 | 3.00 µs | 1.00 µs | 3 (3–3) |")
	require.Contains(t, string(md), "falls short")
	require.Contains(t, string(md), "native, fault/fork: it <broke>")
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(page), "<svg"), "a distribution, and the throughput")
	require.Contains(t, string(page), "it &lt;broke&gt;")
	require.NotContains(t, string(page), "src=", "the page has all it needs")
	require.FileExists(t, filepath.Join(dir, "raw.json"))
}

func TestLatenciesSurviveTheWay(t *testing.T) {
	h := took("x", 1234*time.Microsecond).Histogram()
	require.EqualValues(t, 100, h.TotalCount())
	require.InEpsilon(t, 1234e3, h.Mean(), 0.002)
}
