// Package report turns what was measured into tables: the median of each peer's samples, and its ratio to one of the peers.
// It measures nothing, and judges nothing.
package report

import (
	"math"
	"slices"
	"strconv"
)

// Row is one figure that is measured of each peer.
type Row struct {
	Section string // rows of a section stand together, in the order they came first
	Name    string
	Unit    string
	Bare    bool // no ratio: the figure is at the side, or may be zero
}

// Report collects samples. Its zero value is not usable: see New.
type Report struct {
	base     string
	peers    []string
	sections []string
	rows     []Row
	samples  map[Row]map[string][]float64
}

// New makes an empty report with the peers as columns, and the sections in this order, before any that aren't named. Ratios
// are to the base; where it has no samples, there are none.
func New(base string, peers, sections []string) *Report {
	return &Report{base: base, peers: slices.Clone(peers), sections: slices.Clone(sections), samples: map[Row]map[string][]float64{}}
}

// Add takes one sample of a peer.
func (r *Report) Add(row Row, peer string, value float64) {
	if r.samples[row] == nil {
		r.samples[row] = map[string][]float64{}
		r.rows = append(r.rows, row)
	}
	r.samples[row][peer] = append(r.samples[row][peer], value)
}

// Median is that of a peer's samples, NaN if there are none: the middle one, or the mean of the two in the middle.
func (r *Report) Median(row Row, peer string) float64 { return median(r.samples[row][peer]) }

// Ratio is a peer's median to the base's, NaN where one is missing or the base's is zero.
func (r *Report) Ratio(row Row, peer string) float64 {
	base := r.Median(row, r.base)
	if base == 0 {
		return math.NaN()
	}
	return r.Median(row, peer) / base
}

// Spread is how far a peer's samples lie apart: (largest - smallest) / median. NaN with fewer than two.
func (r *Report) Spread(row Row, peer string) float64 {
	s := r.samples[row][peer]
	if len(s) < 2 {
		return math.NaN()
	}
	return (slices.Max(s) - slices.Min(s)) / median(s)
}

// Spreads are the middle and the largest of all spreads, and whose the largest is. All are zero if nothing was sampled twice.
func (r *Report) Spreads() (middle, largest float64, whose string) {
	var all []float64
	for _, row := range r.rows {
		for _, peer := range r.peers {
			spread := r.Spread(row, peer)
			if math.IsNaN(spread) {
				continue
			}
			if all = append(all, spread); spread > largest {
				largest, whose = spread, peer+", "+row.Section+": "+row.Name
			}
		}
	}
	if len(all) > 0 {
		middle = median(all)
	}
	return middle, largest, whose
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// bySection are the rows of each section that has some.
func (r *Report) bySection() [][]Row {
	names := slices.Clone(r.sections)
	rows := map[string][]Row{}
	for _, row := range r.rows {
		if !slices.Contains(names, row.Section) {
			names = append(names, row.Section)
		}
		rows[row.Section] = append(rows[row.Section], row)
	}
	var all [][]Row
	for _, name := range names {
		if len(rows[name]) > 0 {
			all = append(all, rows[name])
		}
	}
	return all
}

// figure writes a value with three digits that count, more in front of the point.
func figure(value float64) string {
	switch size := math.Abs(value); {
	case math.IsNaN(value):
		return "-"
	case size >= 99.95:
		return strconv.FormatFloat(value, 'f', 0, 64)
	case size >= 9.995:
		return strconv.FormatFloat(value, 'f', 1, 64)
	default:
		return strconv.FormatFloat(value, 'f', 2, 64)
	}
}

// ratio writes a ratio, with a digit more where two would leave nothing of it; empty if there is none.
func ratio(value float64) string {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return ""
	}
	if value > 0 && value < 0.01 {
		return strconv.FormatFloat(value, 'f', 3, 64)
	}
	return strconv.FormatFloat(value, 'f', 2, 64)
}
