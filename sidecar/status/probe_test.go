package status_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

func TestGap16ATargetIsProbedOnceHoweverManyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var probes atomic.Int64
		release := make(chan struct{})
		p := status.NewProbe(func(context.Context) error {
			probes.Add(1)
			<-release
			return errors.New("down")
		}, time.Minute)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if err := p.Check(t.Context()); err == nil || err.Error() != "down" {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		close(release)
		all.Wait()
		time.Sleep(900 * time.Millisecond) // of the bubble's time
		p.Check(t.Context())
		if n := probes.Load(); n != 1 {
			t.Errorf("%d probes, want 1", n)
		}
		time.Sleep(200 * time.Millisecond)
		p.Check(t.Context())
		if n := probes.Load(); n != 2 {
			t.Errorf("%d probes after a second, want 2", n)
		}
	})
}

func TestProbesAreBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := status.NewProbe(func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}, 10*time.Second)
		start := time.Now()
		err := p.Check(t.Context())
		if took := time.Since(start); took >= 10*time.Second || err == nil || err.Error() != "no answer within 5s" {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

// Whoever shares a probe may leave without waiting for it.
func TestWaitingForAProbeEndsWithItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := status.NewProbe(func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}, time.Hour)
		first, end := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Check(first) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Check(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		end()
		if err := <-done; err != nil {
			t.Errorf("got %v", err)
		}
	})
}

func TestTargetStatusIsAnHTTPRequestOverTheTarget(t *testing.T) {
	var code atomic.Int64
	var host, path atomic.Value
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host.Store(r.Host)
		path.Store(r.URL.Path)
		w.WriteHeader(int(code.Load()))
	}))
	defer target.Close()
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", target.Listener.Addr().String())
	}
	check := status.HTTPProbe("http://name.invalid:1/health", dial)
	for want, c := range map[string]int64{"": 200, "target returned status: 503": 503, "target returned status: 204": 204} {
		code.Store(c)
		got := ""
		if err := check(t.Context()); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%d: got %q, want %q", c, got, want)
		}
	}
	if host.Load() != "name.invalid:1" || path.Load() != "/health" {
		t.Errorf("asked %s for %s", host.Load(), path.Load())
	}
	err := status.HTTPProbe("http://name.invalid", func(context.Context) (net.Conn, error) { return nil, errors.New("refused") })(t.Context())
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
}

func TestDialProbeConnects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	probe := status.DialProbe(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
	check(t, probe(t.Context()))
	l.Close()
	if err := probe(t.Context()); err == nil {
		t.Error("a closed port was reached")
	}
}
