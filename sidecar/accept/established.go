package accept

import (
	"context"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
)

// start has the bytes of an established connection moved. Its first ones may be
// there already and move at once, so l.mu is not held meanwhile.
func (l *Loop) start(life context.Context, a *Attempt, client, target *pipe.End) {
	l.all.Add(1)
	p := pipe.Start(client, target, a.options(), func(res pipe.Result) {
		defer l.all.Done()
		l.leave(a)
		l.gate.end(a)
		a.end(res)
		l.log(life, a)
	})
	if forced := l.enter(a, p); forced != nil {
		p.Abort(forced)
	}
}

func (a *Attempt) options() pipe.Options {
	s := a.settings
	opt := pipe.Options{IdleTimeout: s.IdleTimeout, CloseTimeout: s.CloseTimeout,
		Counters: s.Metrics.Counters(a.Record)}
	if s.CloseAtOnce {
		opt.CloseTimeout = time.Nanosecond
	}
	if s.MaxAge > 0 {
		opt.Deadline = time.Now().Add(s.MaxAge)
	}
	return opt
}

// end tells the record what the pipe did.
func (a *Attempt) end(res pipe.Result) {
	if a.settings.CloseAtOnce && res.Cause == pipe.CloseTimeout {
		res.Cause, res.Err = pipe.Closed, nil // as it was asked for
	}
	a.Record.Piped(res)
}

// enter puts an established connection among the open ones, if it is not over
// already. It returns why it has to be cut off, or nil.
func (l *Loop) enter(a *Attempt, p *pipe.Pipe) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.over {
		return nil
	}
	a.pipe = p
	if l.open == nil {
		l.open = map[*Attempt]struct{}{}
	}
	l.open[a] = struct{}{}
	return l.forced
}

func (l *Loop) leave(a *Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.over, a.pipe = true, nil
	delete(l.open, a)
}
