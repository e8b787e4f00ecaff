package harness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// Until calls try again and again until it succeeds, for at most the limit. Its error wraps the last one of try: that of the
// try before, if only the limit ended it.
func Until(ctx context.Context, limit time.Duration, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	again := time.NewTicker(25 * time.Millisecond)
	defer again.Stop()
	var before error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil && before != nil {
			err = before
		}
		before = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v: %w", what, limit, err)
		case <-again.C:
		}
	}
}

// ready waits as Until does, and gives up at once when the program ends.
func (p *Process) ready(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := Until(ctx, limit, p.Name+" ready", try); err != nil {
		return fmt.Errorf("%w; it said:\n%s", err, p.Log.Tail(20))
	}
	return nil
}

// FreeAddr is a loopback address with a port that nobody listens on. It is below the kernel's range for outgoing
// connections, so that none of those takes it before the listener it is meant for.
func FreeAddr() (string, error) {
	var last error
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(17000)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
		last = err
	}
	return "", last
}

// answers succeeds when an HTTP GET of the URL is answered 200.
func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := Get(ctx, http.DefaultClient, url)
		return err
	}
}

// accepts succeeds when a TCP connection is accepted.
func accepts(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
