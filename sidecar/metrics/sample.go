package metrics

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// sampleSize is how many durations a sample keeps: 8 KiB each.
const sampleSize = 1024

// sample keeps the last sampleSize durations, and how many there were. It takes
// no lock: a reader may see a few newer ones in the place of older ones.
type sample struct {
	total atomic.Int64
	ring  [sampleSize]atomic.Int64 // nanoseconds
}

func (s *sample) add(d time.Duration) {
	n := s.total.Add(1)
	s.ring[(n-1)%sampleSize].Store(int64(d))
}

// snapshot is what a sample holds at one time, sorted.
type snapshot struct {
	total  int64
	values []int64
}

func (s *sample) snapshot() snapshot {
	snap := snapshot{total: s.total.Load()}
	snap.values = make([]int64, min(snap.total, sampleSize))
	for i := range snap.values {
		snap.values[i] = s.ring[i].Load()
	}
	slices.Sort(snap.values)
	return snap
}

func (s snapshot) min() int64 {
	if len(s.values) == 0 {
		return 0
	}
	return s.values[0]
}

func (s snapshot) max() int64 {
	if len(s.values) == 0 {
		return 0
	}
	return s.values[len(s.values)-1]
}

func (s snapshot) mean() float64 {
	if len(s.values) == 0 {
		return 0
	}
	sum := 0.0
	for _, v := range s.values {
		sum += float64(v)
	}
	return sum / float64(len(s.values))
}

func (s snapshot) deviation() float64 {
	if len(s.values) == 0 {
		return 0
	}
	mean, sum := s.mean(), 0.0
	for _, v := range s.values {
		sum += (float64(v) - mean) * (float64(v) - mean)
	}
	return math.Sqrt(sum / float64(len(s.values)))
}

// quantile interpolates between the two values nearest to q, which is between 0
// and 1.
func (s snapshot) quantile(q float64) float64 {
	n := len(s.values)
	at := q * float64(n+1) // counted from 1
	switch {
	case n == 0:
		return 0
	case at < 1:
		return float64(s.values[0])
	case at >= float64(n):
		return float64(s.values[n-1])
	}
	below, part := math.Modf(at)
	low, high := float64(s.values[int(below)-1]), float64(s.values[int(below)])
	return low + part*(high-low)
}

func (s snapshot) sorted() snapshot {
	slices.Sort(s.values)
	return s
}
