package k8s

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// fresh is how old a list may be that a container is found in: labels of pods
	// can change, all else of a container is what it is.
	fresh = 10 * time.Second
	// stale is how old it may be when the kubelet doesn't answer.
	stale = 5 * time.Minute
	// requestTimeout is how long the kubelet may take for a list.
	requestTimeout = 10 * time.Second
)

var errClosed = errors.New("the k8s attestor is closed")

// list is the node's pods as the kubelet last told them. However many wait for a
// newer one, they share one request, and requests begin at least interval apart.
type list struct {
	get      func(context.Context) (*index, error)
	interval time.Duration

	mu      sync.Mutex
	index   *index    // nil: none yet
	since   time.Time // when the request for it began
	last    time.Time // when the last request began, that failed or not
	flight  *flight   // nil: nobody waits
	closed  bool
	stop    chan struct{} // closed by close
	flights sync.WaitGroup
}

// flight is one request that some wait for.
type flight struct {
	done  chan struct{}
	index *index
	began time.Time
	err   error
}

func newList(interval time.Duration, get func(context.Context) (*index, error)) *list {
	return &list{get: get, interval: interval, stop: make(chan struct{})}
}

// known returns the last list, and when its request began; nil where there is
// none.
func (l *list) known() (*index, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.index, l.since
}

// newer returns a list that is newer than the one whose request began at after.
func (l *list) newer(ctx context.Context, after time.Time) (*index, time.Time, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, after, errClosed
	}
	if l.index != nil && l.since.After(after) && time.Since(l.since) < l.interval {
		defer l.mu.Unlock()
		return l.index, l.since, nil
	}
	f := l.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		l.flight = f
		// It goes on when the first who waits does not: others may have come.
		l.flights.Go(func() { l.fly(context.WithoutCancel(ctx), f) })
	}
	l.mu.Unlock()
	select {
	case <-f.done:
		return f.index, f.began, f.err
	case <-ctx.Done():
		return nil, after, ctx.Err()
	}
}

// fly waits until a request may begin, and makes it.
func (l *list) fly(ctx context.Context, f *flight) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	wait := l.interval - time.Since(l.last)
	l.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		l.request(ctx, f)
	case <-l.stop:
		f.err = errClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.err == nil {
		l.index, l.since = f.index, f.began
	}
	l.flight = nil
	close(f.done)
}

func (l *list) request(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	l.flights.Go(func() {
		select {
		case <-l.stop:
			cancel()
		case <-ended:
		}
	})
	f.began = time.Now()
	l.mu.Lock()
	l.last = f.began
	l.mu.Unlock()
	f.index, f.err = l.get(ctx)
}

// close ends what waits, and waits for it.
func (l *list) close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.stop)
	}
	l.mu.Unlock()
	l.flights.Wait()
}
