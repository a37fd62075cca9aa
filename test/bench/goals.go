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
	// floors are what a row that does not hold is compared with.
	floors []*floor
}

// A cell is a row in a column.
type cell struct{ row, column string }

// A floor is what is left of a row where nobody waits for a lock of the memory manager, measured in the same run. But for within, processors
// that the memory manager keeps busy are missing there, too.
type floor struct {
	text string
	of   func(row, platform string) cell
	// own, if not nil, is what is compared with that instead of the row itself.
	own func(row, platform string) cell
	// against is set if what is compared is by how much the row exceeds the one that the goal compares it with, here and there.
	against bool
}

var (
	// What is slow then waits for processors, the platform, or the host.
	apart = &floor{text: "the storm in another process", of: func(row, platform string) cell { return cell{elsewhere(row), ours + "-" + platform} }}
	// Stock makes a process wait for its own operations only.
	stockApart = &floor{text: "stock's, beside faults of another process", of: func(row, platform string) cell { return cell{elsewhere(row), stock + "-" + platform} }}
	mapsApart  = &floor{text: apart.text, of: func(row, platform string) cell { return cell{row + "-apart", ours + "-" + platform} }}
	linux      = &floor{text: "native Linux", of: func(row, _ string) cell { return cell{row, native} }}
	linuxToo   = &floor{text: "native Linux's, against its own quiet", of: linux.of, against: true}
	within     = &floor{
		text: "itself, less the memory manager's time and locks",
		of:   func(row, platform string) cell { return cell{inside(row) + without, ours + "-" + platform} },
		own:  func(row, platform string) cell { return cell{inside(row), ours + "-" + platform} },
	}
	processes = &floor{text: "two processes", of: func(row, platform string) cell {
		return cell{strings.TrimSuffix(row, "2") + "apart", ours + "-" + platform}
	}}
)

// elsewhere is the row with the storm in another process, which has a memory manager of its own.
func elsewhere(row string) string { return strings.Replace(row, "fault/", "apart/", 1) }

// inside is the row as the memory manager sees it, see within.go.
func inside(row string) string { return strings.Replace(row, "fault/", "within/", 1) }

// floorLimit is how near to its floor a row has to be, and ptraceLimit what a row on ptrace may be worse than stock's.
const floorLimit, ptraceLimit = 1.05, 1.05

// goals are those of the design, for ratios on systrap.
var goals = []goal{
	{text: "fault p99 under populate+munmap of 64 MiB", rows: []string{"fault/populate-munmap-64m"}, of: metricP99, limit: 0.02, floors: []*floor{apart, within}},
	{text: "fault p99 under populate+munmap of 64 MiB, against quiet", rows: []string{"fault/populate-munmap-64m"}, of: metricP99, against: "fault/quiet", limit: 3, floors: []*floor{apart, linuxToo, within}},
	{text: "fault max under munmap of 1 GiB and read of 512 MiB", rows: []string{"fault/munmap-1g", "fault/read-512m"}, of: metricMax, limit: 0.05, floors: []*floor{apart, within}},
	{text: "fault p99 under every other storm", rows: []string{"fault/*"}, not: []string{"fault/populate-munmap-64m", "fault/quiet", "fault/spin*"}, of: metricP99, limit: 1, floors: []*floor{apart, within}},
	{text: "fault p99 under every other storm, against quiet", rows: []string{"fault/*"}, not: []string{"fault/populate-munmap-64m", "fault/quiet", "fault/spin*"}, of: metricP99, against: "fault/quiet", limit: 2, floors: []*floor{apart, linuxToo, within}},
	{text: "/proc/self/maps p99 under populate+munmap", rows: []string{"maps-*/populate-munmap-64m"}, of: metricP99, limit: 0.1, floors: []*floor{linux, mapsApart}},
	{text: "MAP_FIXED replacement of populated 64 KiB, anonymous", rows: []string{"single/fixed-anon-over-anon-64k"}, of: metricMean, limit: 0.6},
	{text: "every single-thread row", rows: []string{"single/*"}, not: []string{"single/fixed-anon-over-anon-64k"}, of: metricMean, limit: 1.03},
	{text: "every whole program, start-up", rows: []string{"program/*"}, of: metricTime, limit: 1.03},
	{text: "storm throughput", rows: []string{"storm-fault/*"}, not: []string{"storm-fault/spin*"}, of: metricRate, limit: 0.95, floors: []*floor{stockApart, apart}},
	{text: "third thread's mmap p99", rows: []string{"third/*"}, of: metricP99, limit: 1},
	{text: "peak memory of MAP_FIXED and MAP_POPULATE over 1 GiB", rows: []string{"cost/peak-*"}, of: metricValue, limit: 1.05},
	{text: "sentry's memory", rows: []string{"cost/rss-*"}, of: metricValue, limit: 1.05},
	{text: "host mappings", rows: []string{"cost/host-*"}, of: metricValue, limit: 1},
	{text: "two threads on disjoint ranges, no host work", rows: []string{"scale/mmap-munmap-untouched/2", "scale/mprotect-untouched/2", "scale/mincore/2"}, of: metricRate, against: "1", limit: 1.7, floors: []*floor{processes}},
}

const ptraceGoal = "no row on ptrace is worse than stock"

// A verdict is a goal applied to a row.
type verdict struct {
	Goal, Row, Metric string
	Limit             float64
	spread            spread
	More              bool
	Result            string
	// Floor compares the row with its floor, if it has one and does not hold; latencies on ptrace with stock's as those see them who come each millisecond.
	Floor string
	// of are the cells that were compared, and needs those that more pairs are wanted of, to tell.
	of, needs []cell
}

const (
	holds      = "holds"
	fallsShort = "falls short"
	atFloor    = "at its floor"
	tooWide    = "cannot be told"
)

// judge applies the goals.
func (m *measured) judge() []verdict {
	var vs []verdict
	for _, g := range goals {
		for _, row := range m.Order {
			if !matches(row, g.rows) || matches(row, g.not) {
				continue
			}
			own, with := cell{row, "ours-systrap"}, cell{row, "stock-systrap"}
			switch {
			case g.against == "1":
				with = cell{strings.TrimSuffix(row, "2") + "1", own.column}
			case g.against != "":
				with = cell{g.against, own.column}
			}
			if v, ok := m.verdict(g.text, own, with, g.of, g.limit); ok {
				m.compareFloors(&v, own, with, g.of, "systrap", g.floors)
				vs = append(vs, v)
			}
		}
	}
	for _, row := range m.Order {
		of := mainMetric(row)
		own := cell{row, "ours-ptrace"}
		with := cell{row, "stock-ptrace"}
		if v, ok := m.verdict(ptraceGoal, own, with, of, of.within(ptraceLimit)); ok {
			if strings.HasPrefix(row, "storm-fault/") {
				m.compareFloors(&v, own, with, of, "ptrace", []*floor{stockApart, apart})
			}
			if of.name == metricP99.name && v.Result != holds {
				// Not a floor. Who waits long and seldom, and does thousands of things in between, has a p99 that does not show it.
				v.Floor = m.compare(own, with, metricPaced).String() + " for who comes each millisecond"
			}
			vs = append(vs, v)
		}
	}
	return vs
}

// within is the limit for what may be that much worse.
func (of metric) within(times float64) float64 {
	if of.more {
		return 1 / times
	}
	return times
}

// verdict compares two cells.
func (m *measured) verdict(text string, a, b cell, of metric, limit float64) (verdict, bool) {
	return newVerdict(text, a.row, of, m.compare(a, b, of), limit, a, b)
}

// compareFloors compares what does not hold with its floors, until it is at one of them. The goal compared own with against.
func (m *measured) compareFloors(v *verdict, own, against cell, of metric, platform string, floors []*floor) {
	if v.Result == holds {
		return
	}
	toTell := len(v.needs) != 0
	for _, f := range floors {
		fv, ok := m.floorVerdict(f, own, against, of, platform)
		if !ok {
			continue
		}
		if v.Floor != "" {
			v.Floor += "; "
		}
		v.Floor += fv.Ratio() + " of " + f.text
		if fv.needs != nil || toTell {
			v.needs = append(v.needs, fv.of...)
		}
		if fv.Result == holds {
			v.Result = atFloor
			return
		}
	}
}

// floorVerdict compares own with its floor f.
func (m *measured) floorVerdict(f *floor, own, against cell, of metric, platform string) (verdict, bool) {
	with := f.of(own.row, platform)
	if f.own != nil {
		own = f.own(own.row, platform)
	}
	if !f.against {
		return m.verdict("", own, with, of, of.within(floorLimit))
	}
	base := cell{against.row, with.column}
	s := spreadInTurns(ratios(m.relative(own, against, of), m.relative(with, base, of)))
	return newVerdict("", own.row, of, s, of.within(floorLimit), own, against, with, base)
}

// relative is how many times b a is, pair by pair.
func (m *measured) relative(a, b cell, of metric) []float64 {
	return ratios(m.values(a.row, a.column, of), m.values(b.row, b.column, of))
}

// newVerdict is what s says of limit; cells are what it was made of. It returns false if s has nothing.
func newVerdict(text, row string, of metric, s spread, limit float64, cells ...cell) (verdict, bool) {
	v := verdict{Goal: text, Row: row, Metric: of.name, Limit: limit, spread: s, More: of.more, Result: tooWide, of: cells}
	switch {
	case s.wide(limit):
	case of.more && s.median >= limit, !of.more && s.median <= limit:
		v.Result = holds
	case of.more && s.high < limit, !of.more && s.low > limit:
		v.Result = fallsShort
	}
	if !s.decided(limit) {
		v.needs = cells
	}
	return v, s.pairs != 0
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
