package upstream

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// jitter spreads d over 10 % to either side.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// spread spreads d over half of it to either side: many agents lose one issuer
// at one moment.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.5 + rand.Float64()))
}

// pause waits for d, a little more or less, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	return pauseUntil(ctx, jitter(d), nil)
}

// pauseUntil waits for d, or until wake is closed or ctx ends.
func pauseUntil(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-wake:
	}
	return nil
}

// growing is a time that grows by half with each failure, up to most.
type growing struct{ first, most, last time.Duration }

func (g *growing) next() time.Duration {
	g.last = min(max(g.first, g.last*3/2), g.most)
	return g.last
}

func (g *growing) reset() { g.last = 0 }

// signal tells any number of goroutines that something happened. The zero value
// is ready.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// fired returns what is closed the next time.
func (s *signal) fired() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// sometimes is true at most once a minute: a full disk fails each call.
type sometimes struct {
	mu   sync.Mutex
	last time.Time
}

func (s *sometimes) now() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() && time.Since(s.last) < time.Minute {
		return false
	}
	s.last = time.Now()
	return true
}
