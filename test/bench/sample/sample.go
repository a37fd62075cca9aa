// Package sample is what the load program says to the bench: one Result a line, as JSON.
package sample

import (
	"math"
	"time"

	// Latency histograms: fixed relative error over nine orders of magnitude, and a compact encoding.
	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Result is one row, measured once.
type Result struct {
	// Row is its name: the group, a slash, the rest.
	Row string `json:"row"`
	// Ops is how many operations were done, in Seconds.
	Ops     int64   `json:"ops"`
	Seconds float64 `json:"seconds"`
	// Latencies are those of the operations in nanoseconds, a compressed HDR histogram; empty for rows
	// that have a rate only.
	Latencies []byte `json:"latencies,omitempty"`
	// Value is what rows measure that are neither times nor rates: bytes, or a count.
	Value float64 `json:"value,omitempty"`
	// Error says why there is no result.
	Error string `json:"error,omitempty"`
}

// A Recorder collects latencies. It is for one thread.
type Recorder struct{ h *hdrhistogram.Histogram }

// NewRecorder has a relative error of a thousandth, up to a minute and a half.
func NewRecorder() *Recorder {
	return &Recorder{hdrhistogram.New(1, int64(100*time.Second), 3)}
}

// Add records one latency.
func (r *Recorder) Add(d time.Duration) {
	r.h.RecordValue(min(max(int64(d), 1), int64(100*time.Second)))
}

// Count is how many were recorded.
func (r *Recorder) Count() int64 { return r.h.TotalCount() }

// Result is what was recorded, as the row of that name, which took so long.
func (r *Recorder) Result(row string, took time.Duration) Result {
	data, err := r.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	res := Result{Row: row, Ops: r.h.TotalCount(), Seconds: took.Seconds(), Latencies: data}
	if err != nil {
		res.Error = err.Error()
	}
	return res
}

// Histogram decodes the latencies, and returns nil if there are none.
func (r Result) Histogram() *hdrhistogram.Histogram {
	if len(r.Latencies) == 0 {
		return nil
	}
	h, err := hdrhistogram.Decode(r.Latencies)
	if err != nil {
		return nil
	}
	return h
}

// Rate is operations per second, NaN if nothing was measured.
func (r Result) Rate() float64 {
	if r.Seconds == 0 || r.Error != "" {
		return math.NaN()
	}
	return float64(r.Ops) / r.Seconds
}
