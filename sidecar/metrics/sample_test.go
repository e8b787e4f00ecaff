package metrics

import (
	"math"
	"testing"
	"time"
)

func TestSampleKeepsTheLast(t *testing.T) {
	var s sample
	if snap := s.snapshot(); snap.min() != 0 || snap.max() != 0 || snap.mean() != 0 || snap.quantile(.5) != 0 || snap.deviation() != 0 {
		t.Errorf("empty: %+v", snap)
	}
	for i := range 3 * sampleSize {
		s.add(time.Duration(i))
	}
	snap := s.snapshot()
	if snap.total != 3*sampleSize || snap.min() != 2*sampleSize || snap.max() != 3*sampleSize-1 || snap.mean() != 2.5*sampleSize-.5 {
		t.Errorf("%d values: %d to %d, mean %v", snap.total, snap.min(), snap.max(), snap.mean())
	}
}

// The quantiles are those of ghostunnel's library: interpolated at q(n+1).
func TestQuantiles(t *testing.T) {
	snap := snapshot{total: 4, values: []int64{10, 20, 30, 40}}
	for q, want := range map[float64]float64{0: 10, .1: 10, .5: 25, .75: 37.5, .95: 40, 1: 40} {
		if got := snap.quantile(q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := snap.deviation(); math.Abs(got-11.18) > .01 {
		t.Errorf("deviation %v", got)
	}
}

func TestRateFollows(t *testing.T) {
	r := rate{}
	r.tick(50)
	if r.perSecond != [3]float64{10, 10, 10} {
		t.Errorf("first: %v", r.perSecond)
	}
	for range 12 { // a minute without any
		r.tick(50)
	}
	if got := r.perSecond[0]; math.Abs(got-10/math.E) > 1e-9 {
		t.Errorf("after a minute: %v", got)
	}
}
