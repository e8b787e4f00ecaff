package svidcache

import (
	"context"
	"slices"
	"time"
)

// Thousands of streams that are told of a new bundle in one moment are attested,
// encoded for and sent to in that moment, and their workloads ask for CPU in the
// next. So streams are woken in cohorts: few at once, more at a pace.
const (
	// cohortSize is how many streams are woken together.
	cohortSize = 25
	// atOnce is how many streams are told of a change with no delay.
	atOnce = 200
	// leastPace is how many streams a second are told after these, and within
	// longestSpread the last is.
	leastPace     = 2000
	longestSpread = 3 * time.Second
	// tick is how often some are told meanwhile.
	tick = 25 * time.Millisecond
)

// cohort is some streams of a group.
type cohort struct {
	group   *group
	streams int
	changed chan struct{} // closed and replaced when there may be news
	queued  bool          // is to be told, in its turn
}

// admit returns a cohort with one stream more.
func (g *group) admit() *cohort {
	for _, co := range slices.Backward(g.cohorts) {
		if co.streams < cohortSize {
			co.streams++
			return co
		}
	}
	co := &cohort{group: g, streams: 1, changed: make(chan struct{})}
	g.cohorts = append(g.cohorts, co)
	return co
}

func (g *group) dismiss(co *cohort) {
	if co.streams--; co.streams == 0 {
		g.cohorts = slices.DeleteFunc(g.cohorts, func(other *cohort) bool { return other == co })
	}
}

// ring tells the streams.
func (co *cohort) ring() {
	co.queued = false
	close(co.changed)
	co.changed = make(chan struct{})
}

// pacing is who is still to be told. Guarded by Cache.mu.
type pacing struct {
	queue   []*cohort
	waiting int           // streams in queue
	pace    float64       // streams a second
	credit  float64       // streams that may be told with no delay
	as      time.Duration // of when credit is
	start   chan struct{} // tells [Cache.pace] of a queue; holds one
}

// tell has g's streams look for news: at once, or in their turn.
func (c *Cache) tell(g *group, atOnce bool) {
	for _, co := range g.cohorts {
		switch {
		case atOnce:
			co.ring()
		case co.queued:
		case c.pacing.afford(co.streams, c.since()):
			co.ring()
		default:
			co.queued = true
			c.pacing.add(co)
		}
	}
}

// afford reports whether so many streams may be told with no delay.
func (p *pacing) afford(streams int, at time.Duration) bool {
	p.credit = min(atOnce, p.credit+leastPace*(at-p.as).Seconds())
	p.as = at
	if len(p.queue) > 0 || p.credit < float64(streams) {
		return false
	}
	p.credit -= float64(streams)
	return true
}

func (p *pacing) add(co *cohort) {
	p.queue = append(p.queue, co)
	p.waiting += co.streams
	p.pace = max(leastPace, p.pace, float64(p.waiting)/longestSpread.Seconds())
	select {
	case p.start <- struct{}{}:
	default:
	}
}

// next tells as many as may be after another tick, and reports whether there are
// more.
func (p *pacing) next() bool {
	quota := max(1, int(p.pace*tick.Seconds()))
	n := 0
	for ; n < len(p.queue) && quota > 0; n++ {
		co := p.queue[n]
		p.queue[n] = nil
		if co.queued {
			quota -= co.streams
			co.ring()
		}
	}
	if p.queue = p.queue[n:]; len(p.queue) == 0 {
		p.queue, p.waiting, p.pace = nil, 0, 0
		return false
	}
	return true
}

// pace tells those in the queue until ctx ends.
func (c *Cache) pace(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.pacing.start:
		}
		for more := true; more; {
			timer := time.NewTimer(tick)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
			c.mu.Lock()
			more = c.pacing.next()
			c.mu.Unlock()
		}
	}
}
