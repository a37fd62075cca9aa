package main

import (
	"fmt"
	"math"
	"path"
	"strings"
)

// A goal is a bound for some rows.
type goal struct {
	text string
	rows []string // patterns
	of   metric
	// against is what the row is compared with: the stock runsc, unless it names another row of ours.
	against string
	limit   float64
	not     []string // rows that have a goal of their own
}

// goals are those of the design, for ratios on systrap.
var goals = []goal{
	{text: "fault p99 under populate+munmap of 64 MiB", rows: []string{"fault/populate-munmap-64m"}, of: metricP99, limit: 0.02},
	{text: "fault p99 under populate+munmap of 64 MiB, against quiet", rows: []string{"fault/populate-munmap-64m"}, of: metricP99, against: "fault/quiet", limit: 3},
	{text: "fault max under munmap of 1 GiB and read of 512 MiB", rows: []string{"fault/munmap-1g", "fault/read-512m"}, of: metricMax, limit: 0.05},
	{text: "fault p99 under every other storm", rows: []string{"fault/*"}, not: []string{"fault/populate-munmap-64m", "fault/quiet", "fault/spin*"}, of: metricP99, limit: 1},
	{text: "fault p99 under every other storm, against quiet", rows: []string{"fault/*"}, not: []string{"fault/populate-munmap-64m", "fault/quiet", "fault/spin*"}, of: metricP99, against: "fault/quiet", limit: 2},
	{text: "/proc/self/maps p99 under populate+munmap", rows: []string{"maps-*/populate-munmap-64m"}, of: metricP99, limit: 0.1},
	{text: "MAP_FIXED replacement of populated 64 KiB, anonymous", rows: []string{"single/fixed-anon-over-anon-64k"}, of: metricMean, limit: 0.6},
	{text: "every single-thread row", rows: []string{"single/*"}, not: []string{"single/fixed-anon-over-anon-64k"}, of: metricMean, limit: 1.03},
	{text: "every whole program, start-up", rows: []string{"program/*"}, of: metricTime, limit: 1.03},
	{text: "storm throughput", rows: []string{"storm-fault/*"}, not: []string{"storm-fault/spin*"}, of: metricRate, limit: 0.95},
	{text: "third thread's mmap p99", rows: []string{"third/*"}, of: metricP99, limit: 1},
	{text: "peak memory of MAP_FIXED and MAP_POPULATE over 1 GiB", rows: []string{"cost/peak-*"}, of: metricValue, limit: 1.05},
	{text: "sentry's memory", rows: []string{"cost/rss-*"}, of: metricValue, limit: 1.05},
	{text: "host mappings", rows: []string{"cost/host-*"}, of: metricValue, limit: 1},
	{text: "two threads on disjoint ranges, no host work", rows: []string{"scale/mmap-munmap-untouched/2", "scale/mprotect-untouched/2", "scale/mincore/2"}, of: metricRate, against: "1", limit: 1.7},
}

const ptraceGoal = "no row on ptrace is worse than stock"

// ptraceLimit is what a row on ptrace may be worse than stock's.
const ptraceLimit = 1.05

// A verdict is a goal applied to a row.
type verdict struct {
	Goal, Row, Metric string
	Limit             float64
	spread            spread
	More              bool
	Result            string // holds, falls short, or spread too wide
}

const (
	holds      = "holds"
	fallsShort = "falls short"
	tooWide    = "spread too wide to say"
)

// judge applies the goals.
func (m *measured) judge() []verdict {
	var vs []verdict
	for _, g := range goals {
		for _, row := range m.Order {
			if !matches(row, g.rows) || matches(row, g.not) {
				continue
			}
			a, b := m.values(row, "ours-systrap", g.of), m.values(row, "stock-systrap", g.of)
			switch {
			case g.against == "1":
				b = m.values(strings.TrimSuffix(row, "2")+"1", "ours-systrap", g.of)
			case g.against != "":
				b = m.values(g.against, "ours-systrap", g.of)
			}
			if s := ratios(a, b); s.pairs > 0 {
				vs = append(vs, newVerdict(g.text, row, g.of, s, g.limit))
			}
		}
	}
	for _, row := range m.Order {
		of := mainMetric(row)
		limit := ptraceLimit
		if of.more {
			limit = 1 / ptraceLimit
		}
		if s := ratios(m.values(row, "ours-ptrace", of), m.values(row, "stock-ptrace", of)); s.pairs > 0 {
			vs = append(vs, newVerdict(ptraceGoal, row, of, s, limit))
		}
	}
	return vs
}

func newVerdict(text, row string, of metric, s spread, limit float64) verdict {
	v := verdict{Goal: text, Row: row, Metric: of.name, Limit: limit, spread: s, More: of.more, Result: fallsShort}
	switch {
	case s.wide(limit):
		v.Result = tooWide
	case of.more && s.median >= limit, !of.more && s.median <= limit:
		v.Result = holds
	}
	return v
}

// Relation is the limit as the goal states it.
func (v verdict) Relation() string {
	if v.More {
		return fmt.Sprintf("≥ %.2f", v.Limit)
	}
	return fmt.Sprintf("≤ %.2f", v.Limit)
}

// Ratio is the median, and how far the pairs lie apart.
func (v verdict) Ratio() string { return v.spread.String() }

func (s spread) String() string {
	if math.IsNaN(s.median) {
		return "-"
	}
	return fmt.Sprintf("%.3g (%.3g–%.3g)", s.median, s.min, s.max)
}

// matches says whether a pattern matches.
func matches(row string, patterns []string) bool {
	for _, p := range patterns {
		if ok, _ := path.Match(p, row); ok {
			return true
		}
	}
	return false
}

// mainMetric is what a row is about.
func mainMetric(row string) metric {
	group, _, _ := strings.Cut(row, "/")
	switch {
	case group == "single":
		return metricMean
	case group == "program":
		return metricTime
	case group == "cost", group == "hostops":
		return metricValue
	case group == "scale", strings.HasPrefix(group, "storm-"):
		return metricRate
	default:
		return metricP99
	}
}
