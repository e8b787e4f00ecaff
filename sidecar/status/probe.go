package status

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// probeLife is how long the result of a probe holds: however many ask, a target
// is tried once in that time.
const probeLife = time.Second

// Probe finds out whether a target can be reached, at most once at a time and
// once in a while.
type Probe struct {
	check   func(context.Context) error
	timeout time.Duration

	mu      sync.Mutex
	running chan struct{} // closed at the end of the probe under way; nil if there is none; guarded by mu
	done    time.Time     // when the last one ended; guarded by mu
	err     error         // its result; guarded by mu
}

// NewProbe returns a Probe that runs check. A probe takes at most half of
// connectTimeout, so that it ends before whoever asks gives up.
func NewProbe(check func(context.Context) error, connectTimeout time.Duration) *Probe {
	return &Probe{check: check, timeout: connectTimeout / 2}
}

// Check returns nil if the target was reached just now. It goes on for those who
// share it when ctx ends, but not beyond the server's.
func (p *Probe) Check(ctx context.Context) error {
	p.mu.Lock()
	if p.running == nil && !p.done.IsZero() && time.Since(p.done) < probeLife {
		defer p.mu.Unlock()
		return p.err
	}
	if running := p.running; running != nil {
		p.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	}
	running := make(chan struct{})
	p.running = running
	p.mu.Unlock()
	err := p.run(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.done, p.running = err, time.Now(), nil
	close(running)
	return err
}

func (p *Probe) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(serverContext(ctx), p.timeout, fmt.Errorf("no answer within %s", p.timeout))
	defer cancel()
	err := p.check(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// DialProbe is a check that connects, and no more.
func DialProbe(dial func(context.Context) (net.Conn, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := dial(ctx)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// HTTPProbe is a check that a GET of url is answered with 200. The connections
// come from dial; url gives no more than the scheme, the Host and the path.
func HTTPProbe(url string, dial func(context.Context) (net.Conn, error)) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // else the target would keep a connection that nobody counts
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("target returned status: %d", resp.StatusCode)
		}
		return nil
	}
}
