package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	// Tables, on the terminal and in Markdown.
	"github.com/jedib0t/go-pretty/v6/table"
)

//go:embed report.html
var page string

// report writes report.md and report.html, and says on the terminal what falls short.
func (m *measured) report(dir string) error {
	verdicts := m.judge()
	var md strings.Builder
	fmt.Fprintf(&md, "# Benchmark\n\n%s\n\n", m.about())
	fmt.Fprintf(&md, "## Goals\n\nRatios to stock (or to what the goal says), pair by pair: median (least–most).\n\n%s\n\n", goalTable(verdicts, nil).RenderMarkdown())
	groups := m.groups()
	for _, g := range groups {
		fmt.Fprintf(&md, "## %s\n\n%s\n\n", g.Name, g.table.RenderMarkdown())
	}
	if len(m.Errors) > 0 {
		fmt.Fprintf(&md, "## Not measured\n\n* %s\n", strings.Join(m.Errors, "\n* "))
	}
	if err := os.WriteFile(filepath.Join(dir, "report.md"), []byte(md.String()), 0o644); err != nil {
		return err
	}
	if err := m.writeHTML(filepath.Join(dir, "report.html"), verdicts, groups); err != nil {
		return err
	}
	if short := goalTable(verdicts, func(v verdict) bool { return v.Result != holds }); short.Length() > 0 {
		fmt.Println(short.Render())
	}
	for _, e := range m.Errors {
		fmt.Println("not measured:", e)
	}
	fmt.Println(tally(verdicts))
	return nil
}

// tally says how many verdicts there are of each kind.
func tally(vs []verdict) string {
	counts := map[string]int{}
	for _, v := range vs {
		counts[v.Result]++
	}
	return fmt.Sprintf("%d rows with goals: %d hold, %d are at their floors, %d fall short, %d cannot be told",
		len(vs), counts[holds], counts[atFloor], counts[fallsShort], counts[tooWide])
}

// about says what was measured on.
func (m *measured) about() string {
	mc := m.Machine
	text := fmt.Sprintf("%s. %s, %d processors, %.0f GiB, %s, %s. Revision %s, gVisor %s.", mc.When.Format(time.RFC1123), mc.CPU,
		mc.CPUs, float64(mc.Memory)/(1<<30), mc.Kernel, mc.Go, mc.Revision, mc.GVisor)
	if m.Machine.Awake {
		text += " Idle processors waited without sleeping."
	}
	if m.Quick {
		text += " A quick run: too short for the tails."
	}
	return text
}

func goalTable(vs []verdict, which func(v verdict) bool) table.Writer {
	t := table.NewWriter()
	t.AppendHeader(table.Row{"goal", "row", "metric", "limit", "ratio", "pairs", "result", "floor"})
	for _, v := range vs {
		if which == nil && v.Goal == ptraceGoal && v.Result == holds {
			continue // hundreds of them: the rows' own tables have them
		}
		if which == nil || which(v) {
			t.AppendRow(table.Row{v.Goal, v.Row, v.Metric, v.Relation(), v.Ratio(), v.spread.pairs, v.Result, v.Floor})
		}
	}
	return t
}

// A group is a table of rows of one kind.
type group struct {
	Name  string
	table table.Writer
	Plots []template.HTML
}

func (g group) HTML() template.HTML { return template.HTML(g.table.RenderHTML()) }

// groups are the tables: a line for each row, with medians over the rounds, and the ratios of the pairs.
func (m *measured) groups() []group {
	var gs []group
	at := map[string]int{}
	for _, row := range m.Order {
		name, rest, _ := strings.Cut(row, "/")
		metrics := []metric{mainMetric(row)}
		if metrics[0].name == metricP99.name || metrics[0].name == metricMean.name {
			metrics = []metric{metricMean, metricP50, metricP90, metricP99, metricPaced, metricP999, metricMax}
		}
		i, ok := at[name]
		if !ok {
			i = len(gs)
			at[name] = i
			t := table.NewWriter()
			head := table.Row{"row", ""}
			for _, c := range m.columns() {
				head = append(head, c)
			}
			for _, p := range m.platforms() {
				head = append(head, "ours/stock "+p)
			}
			t.AppendHeader(head)
			gs = append(gs, group{Name: name, table: t})
		}
		for _, of := range metrics {
			line := table.Row{rest, of.name}
			for _, c := range m.columns() {
				line = append(line, quantity(row, of, spreadOf(m.values(row, c, of)).median))
			}
			for _, p := range m.platforms() {
				line = append(line, m.compare(cell{row, ours + "-" + p}, cell{row, stock + "-" + p}, of).String())
			}
			gs[i].table.AppendRow(line)
		}
	}
	return gs
}

// quantity is a number with its unit.
func quantity(row string, of metric, v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case of.name == metricRate.name:
		return fmt.Sprintf("%.4g/s", v)
	case strings.HasPrefix(row, "cost/host-"), strings.HasPrefix(row, "hostops/"):
		return fmt.Sprintf("%.4g", v)
	case of.name == metricValue.name:
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case v < 1e3:
		return fmt.Sprintf("%.0f ns", v)
	case v < 1e6:
		return fmt.Sprintf("%.2f µs", v/1e3)
	case v < 1e9:
		return fmt.Sprintf("%.2f ms", v/1e6)
	default:
		return fmt.Sprintf("%.2f s", v/1e9)
	}
}

func (m *measured) writeHTML(path string, vs []verdict, gs []group) error {
	for i := range gs {
		plots, err := m.plots(gs[i].Name)
		if err != nil {
			return fmt.Errorf("plotting %s: %w", gs[i].Name, err)
		}
		gs[i].Plots = plots
	}
	t, err := template.New("report").Parse(page)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	err = t.Execute(&out, map[string]any{
		"About": m.about(), "Goals": template.HTML(goalTable(vs, nil).RenderHTML()), "Groups": gs, "Errors": m.Errors,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}
