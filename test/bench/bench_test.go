package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
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
	s := spreadOf(ratios([]float64{1, 10, 100}, []float64{2, 20, 200}))
	require.Equal(t, spread{median: 0.5, min: 0.5, max: 0.5, pairs: 3, low: 0.5, high: 0.5, values: 3}, s)
	s = spreadOf(ratios([]float64{1, math.NaN(), 3}, []float64{1, 1, 1, 1}))
	require.Equal(t, spread{median: 2, min: 1, max: 3, pairs: 2, low: 1, high: 3, values: 2}, s, "a round without a result makes no pair")
	require.True(t, math.IsNaN(spreadOf(ratios(nil, nil)).median))
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
	require.Equal(t, holds, resultOf(metricMean, spreadOf(vs)))
	require.Equal(t, tooWide, resultOf(metricMean, spreadOf(vs[:4])))
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name string
		of   metric
		s    spread
		want string
	}{
		{"below", metricMean, spread{0.9, 0.8, 0.95, 5, 0.8, 0.95, 5}, holds},
		{"above", metricMean, spread{1.2, 1.1, 1.3, 5, 1.1, 1.3, 5}, fallsShort},
		{"around, close together", metricMean, spread{0.99, 0.9, 1.1, 5, 0.9, 1.1, 5}, holds},
		{"around, far apart", metricMean, spread{0.99, 0.5, 2, 5, 0.5, 2, 5}, tooWide},
		{"a pair, near", metricMean, spread{0.9, 0.9, 0.9, 1, 0.9, 0.9, 1}, tooWide},
		{"a pair, far below", metricMean, spread{0.5, 0.5, 0.5, 1, 0.5, 0.5, 1}, holds},
		{"a pair, far above", metricMean, spread{2, 2, 2, 1, 2, 2, 1}, fallsShort},
		{"above, but maybe not", metricMean, spread{1.05, 0.9, 1.1, 9, 0.95, 1.1, 9}, tooWide},
		{"far apart, and all of it below", metricMean, spread{0.1, 0.01, 0.9, 5, 0.01, 0.9, 5}, holds},
		{"more is better", metricRate, spread{1.2, 1.1, 1.3, 5, 1.1, 1.3, 5}, holds},
		{"more is better, and there is less", metricRate, spread{0.8, 0.7, 0.9, 5, 0.7, 0.9, 5}, fallsShort},
	} {
		require.Equal(t, c.want, resultOf(c.of, c.s), c.name)
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
	s := spreadOf(ratios(all.values("single/getppid", "ours-systrap", metricMean), all.values("single/getppid", "stock-systrap", metricMean)))
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

func TestMorePairsUntilItCanBeTold(t *testing.T) {
	for _, c := range []struct {
		name string
		s    spread
		want bool
	}{
		{"one pair", spread{0.1, 0.1, 0.1, 1, 0.1, 0.1, 1}, false},
		{"two", spread{0.1, 0.1, 0.12, 2, 0.1, 0.12, 2}, false},
		{"three, all far below", spread{0.1, 0.1, 0.12, 3, 0.1, 0.12, 3}, true},
		{"three, all far above", spread{3, 2.6, 3.4, 3, 2.6, 3.4, 3}, true},
		{"three, one near", spread{0.5, 0.2, 0.9, 3, 0.2, 0.9, 3}, false},
		{"three by three, all clearly below", spread{0.5, 0.4, 0.79, 6, 0.4, 0.79, 3}, true},
		{"three by three, all clearly above", spread{1.4, 1.26, 1.5, 6, 1.26, 1.5, 3}, true},
		{"four by two, all clearly below", spread{0.6, 0.55, 0.65, 4, 0.55, 0.65, 2}, false},
		{"ten, all near, on one side", spread{1.1, 1.01, 1.2, 10, 1.01, 1.2, 10}, true},
		{"ten, on both sides", spread{1.1, 0.9, 1.2, 10, 0.9, 1.2, 10}, false},
		{"many, on both sides", spread{1.1, 0.9, 1.2, mostPairs, 0.9, 1.2, mostPairs}, true},
	} {
		require.Equal(t, c.want, c.s.decided(1), c.name)
	}
}

// Who is measured first takes half as long again; that cancels out.
func TestPairsAreTakenInTurns(t *testing.T) {
	m := newTestMeasured()
	for pair := range 6 {
		first, second := time.Duration(150), time.Duration(100)
		if pair%2 == 1 {
			first, second = second, first
		}
		m.add(pair, "ours-systrap", []sample.Result{took("single/getppid", first)})
		m.add(pair, "stock-systrap", []sample.Result{took("single/getppid", second)})
	}
	s := m.compare(cell{"single/getppid", "ours-systrap"}, cell{"single/getppid", "stock-systrap"}, metricMean)
	require.Equal(t, [2]int{6, 3}, [2]int{s.pairs, s.values})
	m.Rows["single/getppid"]["ours-systrap"] = m.Rows["single/getppid"]["ours-systrap"][:4]
	require.Equal(t, tooWide, m.judge()[0].Result, "two times two pairs look closer together than they are")
	require.InDelta(t, 1, s.min, 0.01)
	require.InDelta(t, 1, s.max, 0.01)
	nan := math.NaN()
	require.InDeltaSlice(t, []float64{4}, inTurns([]float64{7, nan, 2, 8, nan, 5}), 1e-9)
	require.Equal(t, []float64{7}, inTurns([]float64{7})) // better than nothing
}

// Three pairs, of which two make a value. One container of six was slow for reasons of its own.
func TestOneSlowContainerIsNoVerdict(t *testing.T) {
	for slow, want := range map[float64]string{6: tooWide, 1: fallsShort} {
		s := spreadInTurns([]float64{slow * 2, 2, 2 / slow})
		require.Equal(t, want, resultOf(metricMean, s), "%v", s)
		require.Equal(t, 3, s.pairs)
		require.Equal(t, [2]float64{2 / slow, 2 * slow}, [2]float64{s.min, s.max}, "what is shown tells why")
	}
	require.False(t, spreadInTurns([]float64{12, 2, 0.9}).decided(1))
}

// resultOf is what s says of a limit of 1.
func resultOf(of metric, s spread) string {
	v, _ := newVerdict("", "", of, s, 1)
	return v.Result
}

// A goal against quiet has Linux's own excess for a floor, and throughput on ptrace that of stock's where nobody waits.
func TestOtherFloors(t *testing.T) {
	for _, c := range []struct {
		linux time.Duration // its p99, of a quiet one of 10
		want  string
	}{
		{70, atFloor}, // ours is 6 times its quiet one
		{40, fallsShort},
	} {
		m := newTestMeasured()
		for pair := range 6 {
			m.add(pair, "ours-systrap", []sample.Result{took("fault/quiet", 100), took("fault/fork", 600), took("apart/fork", 300)})
			m.add(pair, native, []sample.Result{took("fault/quiet", 10), took("fault/fork", c.linux)})
		}
		require.Equal(t, c.want, m.judge()[0].Result, "Linux's p99 is %d", c.linux)
	}
	for apart, want := range map[int64]string{52: atFloor, 80: fallsShort} {
		m := newTestMeasured()
		for pair := range 6 {
			m.add(pair, "ours-ptrace", []sample.Result{{Row: "storm-fault/fork", Ops: 50, Seconds: 1}})
			m.add(pair, "stock-ptrace", []sample.Result{{Row: "storm-fault/fork", Ops: 100, Seconds: 1}, {Row: "storm-apart/fork", Ops: apart, Seconds: 1}})
		}
		require.Equal(t, want, m.judge()[0].Result, "stock's has %d beside faults elsewhere", apart)
	}
}

// A row is at its floor if it would be as long without the memory manager's time, whatever the row itself is.
func TestFloorFromWithin(t *testing.T) {
	for took2, want := range map[time.Duration]string{980: atFloor, 900: fallsShort} {
		m := newTestMeasured()
		for pair := range 6 {
			m.add(pair, "ours-systrap", []sample.Result{took("fault/quiet", 100), took("fault/fork", 600), took("apart/fork", 300),
				took("within/fork", 1000), took("within/fork"+without, took2)})
		}
		v := m.judge()[0]
		require.Equal(t, want, v.Result, "%d of 1000", took2)
		require.Contains(t, v.Floor, within.text)
	}
}

// What is measured of the log is the thread that touches pages one stride apart, from one to the next, with its faults in between, and without its pauses.
func TestFaultsFromWithin(t *testing.T) {
	log := `I1201 07:00:00.000000       1 x.go:1] something else
W1201 07:00:01.000000       1 times_on.go:1] [   1:   1] mmtimes {"Pages":[4096,2101248,4198400,8192,6295552,8392704],"All":[900,901,100,20,100,60000000000],"Without":[1,2,90,15,80,60000000000]}
W1201 07:00:01.000000       1 times_on.go:1] [   1:   2] mmtimes {"Pages":[4096,8192,2105344],"All":[9,9,9],"Without":[9,9,9]}
W1201 07:00:02.000000       1 times_on.go:1] [   1:   1] mmtimes {"Pages":[10489856,4096,8192],"All":[60000000000,1,1],"Without":[290,1,1]}
`
	threads := map[string]*insideFaults{}
	require.NoError(t, addFaults(threads, strings.NewReader(log)))
	require.Len(t, threads, 2)
	fs := threads["1:   1"]
	// 2101248 is the second of its kind, so from there on: 4198400, 6295552 by way of 8192, not 8392704 after a minute of something else, and 10489856, for which the memory manager took a minute.
	require.Equal(t, int64(3), fs.all.Count())
	require.Equal(t, []float64{100, 120}, quantiles(fs.all)[:2])
	require.InDelta(t, 6e10, quantiles(fs.all)[2], 6e7)
	require.Equal(t, []float64{90, 95, 290}, quantiles(fs.without))
	require.Zero(t, threads["1:   2"].all.Count(), "one step does not say whether more are to come")
	require.ErrorContains(t, addFaults(threads, strings.NewReader("[   1:   1] mmtimes {}}\n")), "times of faults")
}

// quantiles are the least, the middle and the most.
func quantiles(r *sample.Recorder) (qs []float64) {
	h := r.Result("", 0).Histogram()
	for _, q := range []float64{0, 50, 100} {
		qs = append(qs, float64(h.ValueAtQuantile(q)))
	}
	return qs
}

// Of latencies on ptrace that fall short, there is also what those see who come each millisecond: a p99 of calls does not show how long the slow ones take.
func TestLatenciesOnPtraceArePacedToo(t *testing.T) {
	m := newTestMeasured()
	mostly := func(usual, seldom time.Duration) sample.Result {
		r := sample.NewRecorder()
		for range 995 {
			r.Add(usual)
		}
		for range 5 {
			r.Add(seldom)
		}
		return r.Result("io/populate-munmap-64m", time.Second)
	}
	for pair := range 6 {
		m.add(pair, "ours-ptrace", []sample.Result{mostly(200*time.Microsecond, 200*time.Microsecond)})
		m.add(pair, "stock-ptrace", []sample.Result{mostly(100*time.Microsecond, 20*time.Millisecond)})
	}
	v := m.judge()[0]
	require.Equal(t, fallsShort, v.Result)
	require.Equal(t, "0.0111 (0.0111–0.0111) for who comes each millisecond", v.Floor)
}

// A row may be as slow as what nobody can do better: then it is said so, and more than the goal allows is told apart from more
// than that.
func TestFloors(t *testing.T) {
	for _, c := range []struct {
		row, floor time.Duration
		want       string
	}{
		{100, 100, holds}, // its floor does not matter then
		{900, 1000, atFloor},
		{1040, 1000, atFloor},
		{1200, 1000, fallsShort},
		{1200, 0, fallsShort}, // not measured
	} {
		m := newTestMeasured()
		for pair := range 6 {
			m.add(pair, "ours-systrap", []sample.Result{took("fault/quiet", 100), took("fault/fork", c.row)})
			if c.floor != 0 {
				m.add(pair, "ours-systrap", []sample.Result{took("apart/fork", c.floor)})
			}
		}
		require.Equal(t, c.want, m.judge()[0].Result, "%d, with a floor of %d", c.row, c.floor)
	}
	require.Equal(t, "3 rows with goals: 1 hold, 1 are at their floors, 1 fall short, 0 cannot be told",
		tally([]verdict{{Result: holds}, {Result: atFloor}, {Result: fallsShort}}))
}

// The first round measures everything. The others measure what cannot be told yet, and what it is compared with.
func TestLaterRoundsMeasureWhatCannotBeToldYet(t *testing.T) {
	p := &plan{has: map[string]map[string]bool{}, targets: &targets{
		native: &target{name: native},
		pairs:  []pair{{&target{name: ours, platform: "systrap"}, &target{name: stock, platform: "systrap"}}},
	}}
	p.items = []item{{name: "single"}, {name: "fault"}, {name: "apart"}, {name: "program/empty"}}
	m := newTestMeasured()
	turns := func(round int) map[string][]string {
		all := map[string][]string{}
		for _, ts := range p.turns(round, m) {
			for _, t := range ts {
				all[t.String()] = t.rows
			}
		}
		return all
	}
	require.Len(t, turns(0), 4*3)
	require.Empty(t, turns(0)["single, native"], "all rows of it")

	add := func(pair int, column, name string, rs ...sample.Result) {
		p.add(p.items[slices.IndexFunc(p.items, func(it item) bool { return it.name == name })], rs)
		m.add(pair, column, rs)
	}
	for pair := range 3 {
		add(pair, "ours-systrap", "single", took("single/getppid", 1000), took("single/first-touch", 100))
		add(pair, "stock-systrap", "single", took("single/getppid", 1000), took("single/first-touch", 1000))
		add(pair, native, "single", took("single/getppid", 10), took("single/first-touch", 10))
		// It is far below stock's, and so a goal that holds; against its own quiet p99 it cannot be told.
		add(pair, "ours-systrap", "fault", took("fault/quiet", 1000), took("fault/fork", 2000), sample.Result{Row: "storm-fault/fork", Ops: 3, Seconds: 1})
		add(pair, "stock-systrap", "fault", took("fault/quiet", 1000), took("fault/fork", 90_000), sample.Result{Row: "storm-fault/fork", Ops: 1, Seconds: 1})
		add(pair, "ours-systrap", "apart", took("apart/fork", 2000))
		add(pair, "stock-systrap", "apart", took("apart/fork", 2000))
	}
	require.Equal(t, map[string][]string{
		"single, ours-systrap":  {"single/getppid"},
		"single, stock-systrap": {"single/getppid"},
		"fault, ours-systrap":   {"fault/fork", "fault/quiet"},
	}, turns(1))
	first := func(round int) string { return p.turns(round, m)[0][0].on.column() }
	require.Equal(t, []string{"stock-systrap", "ours-systrap"}, []string{first(1), first(2)}, "they take turns in being first")
}
