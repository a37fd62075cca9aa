// Package sample is what the load program says to the bench: one Result a line, as JSON.
package sample

import (
	"errors"
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
	// Paced is the same, with what those would have waited who come each Pace: see Recorder.Add.
	Paced []byte `json:"paced,omitempty"`
	// Value is what rows measure that are neither times nor rates: bytes, or a count.
	Value float64 `json:"value,omitempty"`
	// Error says why there is no result.
	Error string `json:"error,omitempty"`
}

// Pace is how often somebody is thought to come, in Result.Paced.
const Pace = time.Millisecond

// A Recorder collects latencies. It is for one thread.
type Recorder struct{ h, paced *hdrhistogram.Histogram }

// NewRecorder has a relative error of a thousandth, up to a minute and a half.
func NewRecorder() *Recorder {
	return &Recorder{newHistogram(), newHistogram()}
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(100*time.Second), 3) }

// Add records one latency.
//
// A thread that does one thing after the other counts a pause of 60 ms once, and among a hundred quick
// operations, which take less time together, it does not show in a p99. So all that would have begun meanwhile, had
// somebody come each Pace, counts for Paced too ("coordinated omission").
func (r *Recorder) Add(d time.Duration) {
	v := min(max(int64(d), 1), int64(100*time.Second))
	r.h.RecordValue(v)
	r.paced.RecordCorrectedValue(v, int64(Pace))
}

// Count is how many were recorded.
func (r *Recorder) Count() int64 { return r.h.TotalCount() }

// Result is what was recorded, as the row of that name, which took so long.
func (r *Recorder) Result(row string, took time.Duration) Result {
	data, err := r.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	paced, perr := r.paced.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	res := Result{Row: row, Ops: r.h.TotalCount(), Seconds: took.Seconds(), Latencies: data, Paced: paced}
	if err = errors.Join(err, perr); err != nil {
		res.Error = err.Error()
	}
	return res
}

// Histogram decodes the latencies, and returns nil if there are none.
func (r Result) Histogram() *hdrhistogram.Histogram { return decode(r.Latencies) }

// PacedHistogram is Histogram for Paced.
func (r Result) PacedHistogram() *hdrhistogram.Histogram { return decode(r.Paced) }

func decode(data []byte) *hdrhistogram.Histogram {
	if len(data) == 0 {
		return nil
	}
	h, err := hdrhistogram.Decode(data)
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
