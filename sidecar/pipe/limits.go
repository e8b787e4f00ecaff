package pipe

import (
	"fmt"
	"time"
)

// expiry is a Pipe as the Task of its timer.
type expiry Pipe

// Run implements poll.Task.
func (e *expiry) Run() {
	p := (*Pipe)(e)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != moving {
		return
	}
	now := p.loop.Now()
	for _, l := range p.limits() {
		if l.at.IsZero() || now.Before(l.at) {
			continue
		}
		p.because(l.cause, l.err())
		p.resetBoth()
		return
	}
	p.limit()
}

// timeLimit is when a pipe ends at the latest, if no byte moves until then.
type timeLimit struct {
	at    time.Time // zero for never
	cause Cause
	err   func() error
}

// limits are those that there are now.
func (p *Pipe) limits() [3]timeLimit {
	all := [3]timeLimit{{at: p.opt.Deadline, cause: MaxAge, err: func() error {
		return fmt.Errorf("the connection reached its greatest age at %s", p.opt.Deadline.Format(time.RFC3339))
	}}}
	active := p.active.Load()
	if d := p.opt.IdleTimeout; d > 0 {
		all[1] = timeLimit{p.loop.Time(active).Add(d), IdleTimeout, func() error { return fmt.Errorf("no byte moved for %s", d) }}
	}
	if d := p.opt.CloseTimeout; d > 0 && p.over > 0 {
		all[2] = timeLimit{p.loop.Time(max(active, p.quiet)).Add(d), CloseTimeout, func() error {
			return fmt.Errorf("one direction had ended, and no byte moved the other way for %s", d)
		}}
	}
	return all
}

// limit sets the timer to the first of the limits. While bytes move it stays where
// it is: that costs nothing.
func (p *Pipe) limit() {
	if p.opt.Deadline.IsZero() && p.opt.IdleTimeout <= 0 && p.opt.CloseTimeout <= 0 {
		return
	}
	var first time.Time
	for _, l := range p.limits() {
		if first.IsZero() || !l.at.IsZero() && l.at.Before(first) {
			first = l.at
		}
	}
	if !first.IsZero() {
		p.timer.Task = (*expiry)(p)
		p.loop.Set(&p.timer, first)
	}
}
