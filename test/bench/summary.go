package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jedib0t/go-pretty/v6/table"
)

// summary prints, in Markdown, what several runs say of the goals: each run's ratios, and those of all pairs
// together. Of ptrace it has only the rows that do not hold then.
func summary(dirs []string) error {
	var runs []*measured
	for _, dir := range dirs {
		path := filepath.Join(dir, "raw.json")
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		m := &measured{}
		if err := json.Unmarshal(data, m); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		runs = append(runs, m)
	}
	t := table.NewWriter()
	head := table.Row{"goal", "row", "metric", "limit"}
	for i := range runs {
		head = append(head, fmt.Sprintf("run %d", i+1))
	}
	t.AppendHeader(append(head, "all pairs", "result", "floor"))
	judged := make([]map[string]verdict, len(runs))
	for i, m := range runs {
		judged[i] = map[string]verdict{}
		for _, v := range m.judge() {
			judged[i][v.key()] = v
		}
	}
	all := together(runs).judge()
	for _, v := range all {
		if v.Goal == ptraceGoal && v.Result == holds {
			continue
		}
		line := table.Row{v.Goal, v.Row, v.Metric, v.Relation()}
		for i := range runs {
			ratio := "-"
			if of, ok := judged[i][v.key()]; ok {
				ratio = fmt.Sprintf("%.3g", of.spread.median)
			}
			line = append(line, ratio)
		}
		t.AppendRow(append(line, v.Ratio(), v.Result, v.Floor))
	}
	fmt.Println(t.RenderMarkdown())
	fmt.Println("\nOf all pairs together,", tally(all))
	return nil
}

// key tells verdicts of a run apart.
func (v verdict) key() string { return v.Goal + "\n" + v.Row + "\n" + v.Metric }

// together has the pairs of all runs, one run's behind the other's.
func together(runs []*measured) *measured {
	all := newMeasured(config{})
	offset := 0
	for _, m := range runs {
		most := 0
		for _, row := range m.Order {
			for column, results := range m.Rows[row] {
				most = max(most, len(results))
				for pair, r := range results {
					if r.Row != "" { // it was measured
						all.add(offset+pair, column, results[pair:pair+1])
					}
				}
			}
		}
		offset += most + most%2 // who was first stays known
	}
	return all
}
