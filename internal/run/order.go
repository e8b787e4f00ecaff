package run

import (
	"context"
	"errors"
	"fmt"
)

// Role is one of the things a process runs.
type Role struct {
	Name string
	// Run serves until ctx ends, then drains and returns nil or ctx's error. It calls ready once, when what comes after it
	// may start.
	Run func(ctx context.Context, ready func()) error
}

// InOrder runs roles: each starts once the one before is ready, for it needs it. When ctx ends, or a role ends by itself,
// all stop in reverse, each only after those that need it are gone. It returns nil if ctx's end was the reason, and
// otherwise what the first role ended with, by name.
func InOrder(ctx context.Context, roles ...Role) error {
	ended := make(chan result, len(roles))
	var up []started
	var first error
	stopping := false
	for _, r := range roles {
		s := start(ctx, r, ended)
		up = append(up, s)
		select {
		case <-s.ready:
			continue
		case end := <-ended:
			first, stopping = end.why(), true
		case <-ctx.Done():
			stopping = true
		}
		break
	}
	if !stopping {
		select {
		case end := <-ended:
			first = end.why()
		case <-ctx.Done():
		}
	}
	for i := len(up) - 1; i >= 0; i-- {
		up[i].cancel()
		<-up[i].done
	}
	close(ended)
	errs := []error{first}
	for end := range ended { // what went wrong while stopping
		if end.err != nil && !errors.Is(end.err, context.Canceled) {
			errs = append(errs, end.why())
		}
	}
	return errors.Join(errs...)
}

type started struct {
	cancel      context.CancelFunc
	ready, done chan struct{}
}

type result struct {
	name string
	err  error
}

func (r result) why() error {
	if r.err == nil {
		return fmt.Errorf("%s ended by itself", r.name)
	}
	return fmt.Errorf("%s: %w", r.name, r.err)
}

// start runs a role in its own goroutine, deaf to ctx's end: the order of stopping is InOrder's.
func start(ctx context.Context, r Role, ended chan<- result) started {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := started{cancel: cancel, ready: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		defer cancel()
		called := false
		err := r.Run(own, func() {
			if !called {
				called = true
				close(s.ready)
			}
		})
		ended <- result{r.Name, err}
	}()
	return s
}
