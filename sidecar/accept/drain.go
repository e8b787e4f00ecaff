package accept

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errIdle is why a silent connection was ended while draining.
var errIdle = errors.New("shutting down, and the connection was idle")

// drain waits for the connections to end. Silent ones are ended after DrainIdle,
// all that are left after ShutdownTimeout, which is an error.
func (l *Loop) drain(force context.CancelCauseFunc) error {
	done := make(chan struct{})
	go func() {
		l.all.Wait()
		close(done)
	}()
	s := l.settings.Load()
	deadline := time.NewTimer(s.ShutdownTimeout)
	defer deadline.Stop()
	tick := make(<-chan time.Time) // never
	if s.DrainIdle > 0 {
		ticker := time.NewTicker(max(s.DrainIdle/8, time.Millisecond))
		defer ticker.Stop()
		tick = ticker.C
		l.endIdle(s.DrainIdle)
	}
	for {
		select {
		case <-done:
			return nil
		case <-tick:
			l.endIdle(s.DrainIdle)
		case <-deadline.C:
			left := l.Open()
			if left == 0 {
				<-done // there are at most records to be written
				return nil
			}
			err := fmt.Errorf("shutdown timeout: %s passed with %d connections still open: closed them", s.ShutdownTimeout, left)
			force(err)
			l.abort(err)
			<-done
			return err
		}
	}
}

// endIdle ends the connections that have been idle for limit. Those of which one
// end is done and waits for its answer, and those of which bytes are still on their
// way to a slow reader, are silent and not idle.
func (l *Loop) endIdle(limit time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a := range l.open {
		a.pipe.EndIdle(limit, errIdle)
	}
}

// abort ends every connection, also those that are just being established.
func (l *Loop) abort(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forced = cause
	for a := range l.open {
		a.pipe.Abort(cause)
	}
}
