package main

import (
	"bytes"
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
	// Plots, as SVG.
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// plots are those of a group of rows: distributions of latencies, or bars of rates.
func (m *measured) plots(group string) ([]template.HTML, error) {
	var all []template.HTML
	add := func(p *plot.Plot, err error) error {
		if p == nil || err != nil {
			return err
		}
		svg, err := svgOf(p)
		all = append(all, svg)
		return err
	}
	var rates []string
	for _, row := range m.Order {
		name, _, _ := strings.Cut(row, "/")
		if name != group {
			continue
		}
		switch of := mainMetric(row); of.name {
		case metricP99.name:
			if err := add(m.distribution(row)); err != nil {
				return nil, err
			}
		case metricRate.name:
			rates = append(rates, row)
		}
	}
	if len(rates) > 0 {
		if err := add(m.throughput(group, rates)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// distribution shows which share of the operations took longer than so long, all rounds together.
func (m *measured) distribution(row string) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = row
	p.X.Label.Text = "latency, µs"
	p.Y.Label.Text = "share that took longer"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	p.Legend.Top = true
	drawn := false
	for i, column := range m.columns() {
		var sum *hdrhistogram.Histogram
		for _, r := range m.Rows[row][column] {
			if h := r.Histogram(); h != nil && sum == nil {
				sum = h
			} else if h != nil {
				sum.Merge(h)
			}
		}
		if sum == nil || sum.TotalCount() == 0 {
			continue
		}
		var xy plotter.XYs
		left := float64(sum.TotalCount())
		for _, b := range sum.Distribution() {
			if b.Count != 0 {
				xy = append(xy, plotter.XY{X: float64(max(b.From, 1)) / 1e3, Y: left / float64(sum.TotalCount())})
				left -= float64(b.Count)
			}
		}
		line, err := plotter.NewLine(xy)
		if err != nil {
			return nil, err
		}
		line.StepStyle = plotter.PostStep
		line.Color, line.Dashes, line.Width = plotutil.Color(i), plotutil.Dashes(i), vg.Points(1.5)
		p.Add(line)
		p.Legend.Add(column, line)
		drawn = true
	}
	if !drawn {
		return nil, nil
	}
	decades(&p.X)
	decades(&p.Y)
	p.Add(plotter.NewGrid())
	return p, nil
}

// decades widens a logarithmic axis to powers of ten, two at least: it cannot be drawn without.
func decades(a *plot.Axis) {
	a.Min = math.Pow(10, math.Floor(math.Log10(a.Min)))
	a.Max = max(math.Pow(10, math.Ceil(math.Log10(a.Max))), 10*a.Min)
}

// throughput shows rates in relation to stock's.
func (m *measured) throughput(group string, rows []string) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = group + ": throughput, stock is 1"
	width := vg.Points(8)
	var names []string
	for _, row := range rows {
		_, rest, _ := strings.Cut(row, "/")
		names = append(names, rest)
	}
	for i, platform := range m.platforms() {
		var vs plotter.Values
		for _, row := range rows {
			s := m.compare(cell{row, ours + "-" + platform}, cell{row, stock + "-" + platform}, metricRate)
			if math.IsNaN(s.median) {
				s.median = 0
			}
			vs = append(vs, s.median)
		}
		bars, err := plotter.NewBarChart(vs, width)
		if err != nil {
			return nil, err
		}
		bars.Color, bars.LineStyle.Width = plotutil.Color(i), 0
		bars.Offset = width * vg.Length(i)
		p.Add(bars)
		p.Legend.Add(platform, bars)
	}
	p.Legend.Top = true
	p.NominalX(names...)
	p.X.Tick.Label.Rotation = math.Pi / 5
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = draw.XRight, draw.YCenter
	return p, nil
}

// svgOf draws a plot as an element for a page.
func svgOf(p *plot.Plot) (template.HTML, error) {
	c := vgsvg.New(16*vg.Centimeter, 9*vg.Centimeter)
	p.Draw(draw.New(c))
	var out bytes.Buffer
	if _, err := c.WriteTo(&out); err != nil {
		return "", err
	}
	text := out.String()
	at := strings.Index(text, "<svg")
	if at < 0 {
		return "", fmt.Errorf("the plot is no SVG")
	}
	return template.HTML(text[at:]), nil // without the XML declaration, which pages do not have inside
}
