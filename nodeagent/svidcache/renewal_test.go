package svidcache

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

func TestRotatesAtHalfLife(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.issuer.ttl = 10 * time.Second
		w.give(entry("a"))
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		last := answer(t, sub)
		at := time.Now()
		for range 20 {
			next := answer(t, sub)
			// Certificates end at whole seconds: up to one is cut off the life.
			if gap := time.Since(at); gap < 4200*time.Millisecond || gap > 5250*time.Millisecond {
				t.Errorf("rotated after %s", gap)
			}
			if time.Until(next.expires) < 9*time.Second {
				t.Errorf("pushed with %s left", time.Until(next.expires))
			}
			if last.X509Context().SVIDs[0].PrivateKey == next.X509Context().SVIDs[0].PrivateKey {
				t.Error("the key was not rotated")
			}
			last, at = next, time.Now()
		}
		if n := w.issuer.signed("a"); n != 21 {
			t.Errorf("signed %d times, want 21", n)
		}
	})
}

func TestRotationIsSpread(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		var entries []registration.Entry
		for i := range 400 {
			entries = append(entries, entry(fmt.Sprintf("e%03d", i)))
		}
		w.give(entries...)
		start := time.Now()
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		perSecond := make(map[int]int)
		total := 0
		w.issuer.set(func(s *issuer) {
			for _, c := range s.calls {
				second := int(c.at.Sub(start).Seconds())
				if second == 0 {
					continue // the first SVIDs
				}
				perSecond[second] += len(c.ids)
				total += len(c.ids)
			}
		})
		if total != 400 {
			t.Errorf("rotated %d, want 400", total)
		}
		for second, n := range perSecond {
			if n > 20 || second < 1700 || second > 1900 {
				t.Errorf("%d rotations in second %d", n, second)
			}
		}
	})
}

func TestKeepsServingWhileTheIssuerIsAway(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.issuer.ttl = 10 * time.Minute
		w.give(entry("a"))
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		answer(t, sub)
		w.issuer.set(func(s *issuer) { s.down = errors.New("away"); s.calls = nil })
		silent(t, sub, 9*time.Minute)
		late := w.Subscribe(caller("unix:uid:a"))
		answer(t, late) // the last good one
		late.Close()
		if n := w.issuer.signed("a"); n < 5 || n > 60 {
			t.Errorf("tried %d times in 4 minutes", n)
		}
		// Expired: never served again, and the open stream waits on.
		silent(t, sub, 5*time.Minute)
		late = w.Subscribe(caller("unix:uid:a"))
		if _, err := late.Answer(t.Context()); !errors.Is(err, ErrPending) {
			t.Errorf("after expiry: %v, want %v", err, ErrPending)
		}
		late.Close()
		// Back: what waits is asked for at the next sync, not at the next retry.
		w.issuer.set(func(s *issuer) { s.down = nil })
		w.Apply(w.state)
		before := time.Now()
		answer(t, sub)
		if waited := time.Since(before); waited > 0 {
			t.Errorf("recovered %s after the issuer", waited)
		}
	})
}

func TestPrefetchAndOnDemand(t *testing.T) {
	inWorld(t, Config{MaxSize: 3}, func(t *testing.T, w *world) {
		w.give(entry("a", func(e *registration.Entry) { e.DisableX509SVIDPrefetch = true }),
			entry("b"), entry("c"), entry("d"), entry("e"))
		for id, want := range map[string]int{"a": 0, "b": 1, "c": 1, "d": 1, "e": 0} {
			if n := w.issuer.signed(id); n != want {
				t.Errorf("%s signed %d times, want %d", id, n, want)
			}
		}
		before := time.Now()
		sub := w.Subscribe(caller("unix:uid:e"))
		answer(t, sub)
		if waited := time.Since(before); waited > 0 {
			t.Errorf("waited %s for an SVID on demand", waited)
		}
		// One too many now: one that was never used goes, not this one.
		sub.Close()
		if n := w.Stats().SVIDs; n != 3 {
			t.Errorf("%d SVIDs are kept, want 3", n)
		}
		again := w.Subscribe(caller("unix:uid:e"))
		defer again.Close()
		answer(t, again)
		if n := w.issuer.signed("e"); n != 1 {
			t.Errorf("signed %d times", n)
		}
	})
}

// A stream that goes while its SVID is being signed leaves nothing behind that
// would be neither renewed nor dropped.
func TestSVIDThatComesAfterItsStreamWent(t *testing.T) {
	inWorld(t, Config{MaxSize: 1}, func(t *testing.T, w *world) {
		w.give(entry("a"), entry("b"))
		kept := w.Subscribe(caller("unix:uid:a"))
		defer kept.Close()
		answer(t, kept)
		w.issuer.set(func(s *issuer) { s.hold = make(chan struct{}) })
		sub := w.Subscribe(caller("unix:uid:b"))
		synctest.Wait()
		sub.Close()
		w.issuer.set(func(s *issuer) { close(s.hold); s.hold = nil })
		synctest.Wait()
		for _, r := range w.records {
			if r.active() && !w.rotations.has(r) {
				t.Errorf("%s has an SVID that nobody looks after", r.id)
			}
		}
	})
}

func TestDemandIsNotBehindPrefetchThatFailed(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.issuer.set(func(s *issuer) { s.otherID = spiffeid.RequireFromString("spiffe://example.org/other") })
		w.give(entry("a"))
		time.Sleep(10 * time.Minute)
		for n := w.issuer.signed("a"); w.issuer.signed("a") == n; time.Sleep(time.Second) {
		}
		// Callers that come and go are not asked for each time.
		before := w.issuer.signed("a")
		for range 600 {
			w.Subscribe(caller("unix:uid:a")).Close()
			time.Sleep(100 * time.Millisecond)
		}
		if n := w.issuer.signed("a") - before; n > 60 {
			t.Errorf("tried %d times in a minute", n)
		}
		for n := w.issuer.signed("a"); w.issuer.signed("a") == n; time.Sleep(time.Second) {
		}
		w.issuer.set(func(s *issuer) { s.otherID = spiffeid.ID{} })
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		if _, err := sub.Answer(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDemandIsNotBehindPrefetch(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.issuer.hold, w.issuer.free = make(chan struct{}), "z"
		var entries []registration.Entry
		for i := range 900 {
			entries = append(entries, entry(fmt.Sprintf("e%03d", i)))
		}
		w.give(entries...)
		w.give(append(entries, entry("z"))...)
		before := time.Now()
		sub := w.Subscribe(caller("unix:uid:z"))
		defer sub.Close()
		answer(t, sub)
		if waited := time.Since(before); waited > 0 {
			t.Errorf("waited %s behind the prefetch", waited)
		}
		close(w.issuer.hold)
	})
}

func TestWrongAnswersOfTheIssuerAreNotServed(t *testing.T) {
	for name, spoil := range map[string]func(*issuer){
		"another ID":      func(s *issuer) { s.otherID = spiffeid.RequireFromString("spiffe://example.org/other") },
		"another domain":  func(s *issuer) { s.otherID = spiffeid.RequireFromString("spiffe://other.org/a") },
		"already expired": func(s *issuer) { s.ttl = -time.Second },
		"away":            func(s *issuer) { s.down = errors.New("away") },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Config{}, func(t *testing.T, w *world) {
				w.issuer.set(spoil)
				w.give(entry("a"))
				sub := w.Subscribe(caller("unix:uid:a"))
				defer sub.Close()
				start := time.Now()
				if a, err := sub.Answer(t.Context()); !errors.Is(err, ErrPending) {
					t.Errorf("got %v, %v", ids(a), err)
				}
				if waited := time.Since(start); waited != patience {
					t.Errorf("waited %s", waited)
				}
				if n := w.issuer.signed("a"); n < 3 || n > 8 {
					t.Errorf("tried %d times in 5 s", n)
				}
			})
		})
	}
}
