package jwtcache_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
)

// A workload that asks in a loop for what the issuer refuses doesn't make the
// agent ask in one; others are not held off for it.
func TestRefusedIdentityIsHeldOff(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		w.fetch("web", "kept")
		time.Sleep(3 * time.Minute)
		w.issuer.set(func(s *issuer) { s.down, s.calls = status.Error(codes.PermissionDenied, "no"), 0 })
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(time.Millisecond) {
			if _, err := w.Fetch(t.Context(), entry("web"), []string{"shop"}); status.Code(err) != codes.PermissionDenied {
				t.Fatalf("told %v", err)
			}
		}
		if n := w.issuer.signed(); n < 10 || n > 40 {
			t.Errorf("the issuer was asked %d times in a minute", n)
		}
		began := time.Now()
		w.fetch("web", "kept") // another audience's token, past half its life
		if time.Since(began) > 0 {
			t.Errorf("who has a good one waited %s", time.Since(began))
		}
		w.issuer.set(func(s *issuer) { s.down = nil })
		began = time.Now()
		w.fetch("db", "shop")
		if time.Since(began) > 0 {
			t.Errorf("another identity waited %s", time.Since(began))
		}
		w.fetch("web", "shop")
		began = time.Now()
		w.fetch("web", "bank")
		if time.Since(began) > 0 {
			t.Errorf("held off for %s though the issuer signs again", time.Since(began))
		}
		// What is wrong with the audiences is no reason either.
		w.issuer.set(func(s *issuer) { s.down = status.Error(codes.InvalidArgument, "audience") })
		for range 3 {
			if _, err := w.Fetch(t.Context(), entry("web"), []string{"bad"}); status.Code(err) != codes.InvalidArgument {
				t.Errorf("told %v", err)
			}
		}
		if time.Since(began) > 0 {
			t.Errorf("held off for %s", time.Since(began))
		}
	})
}

// within runs test with a cache of the configuration.
func within(t *testing.T, cfg jwtcache.Config, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, issuer: &issuer{a: jwttest.New(t, "example.org", "k"), life: 5 * time.Minute}, log: new(buffer)}
		cfg.Signer = w.issuer
		w.Cache = jwtcache.New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.Run(ctx) })
		defer running.Wait()
		defer cancel()
		test(t, w)
	})
}

// The timeout is as configured, though longer than a caller without a token waits.
func TestCacheHitTimeout(t *testing.T) {
	for _, timeout := range []time.Duration{500 * time.Millisecond, 8 * time.Second} {
		asked := make(chan error, 10)
		within(t, jwtcache.Config{CacheHitTimeout: timeout, Signed: func(_ int, _ time.Duration, err error) { asked <- err }}, func(t *testing.T, w *world) {
			first := w.fetch("web", "shop")
			time.Sleep(3 * time.Minute)
			w.issuer.set(func(s *issuer) { s.hold = make(chan struct{}) })
			began := time.Now()
			if w.fetch("web", "shop").Text != first.Text {
				t.Error("a new token of an issuer that says nothing")
			}
			if took := time.Since(began); took > timeout+time.Second || took < min(timeout, 5*time.Second) {
				t.Errorf("waited %s, want %s", took, timeout)
			}
			if err := <-asked; err != nil {
				t.Errorf("told of %v", err)
			}
		})
	}
}

// What is given goes by the wall clock, retries don't.
func TestClockThatIsSet(t *testing.T) {
	var off atomic.Int64
	within(t, jwtcache.Config{Now: func() time.Time { return time.Now().Add(time.Duration(off.Load())) }}, func(t *testing.T, w *world) {
		w.issuer.set(func(s *issuer) { s.life = 3 * time.Hour })
		first := w.fetch("web", "shop")
		off.Store(int64(2 * time.Hour))
		w.issuer.set(func(s *issuer) { s.down = status.Error(codes.Internal, "x") })
		if w.fetch("web", "shop").Text != first.Text {
			t.Error("not served while it is good")
		}
		off.Store(int64(-24 * time.Hour)) // the failure was a day ahead
		w.issuer.set(func(s *issuer) { s.down = nil })
		off.Store(int64(2 * time.Hour))
		time.Sleep(10 * time.Second)
		if w.fetch("web", "shop").Text == first.Text {
			t.Error("not tried again")
		}
		off.Store(int64(24 * time.Hour))
		if _, err := w.Fetch(t.Context(), entry("web"), []string{"shop"}); err == nil {
			t.Error("served what has expired")
		}
	})
}
