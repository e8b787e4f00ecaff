package svidcache

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// wall is a clock on the wall that is set, now and then.
type wall struct{ off atomic.Int64 }

func (w *wall) now() time.Time { return time.Now().Add(time.Duration(w.off.Load())) }

func (w *wall) set(off time.Duration) { w.off.Store(int64(off)) }

func TestClockThatIsSetForward(t *testing.T) {
	clock := new(wall)
	inWorld(t, Config{Now: clock.now}, func(t *testing.T, w *world) {
		w.issuer.now = clock.now
		w.give(entry("a"))
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		answer(t, sub)
		w.issuer.set(func(s *issuer) { s.down = errors.New("away") })
		clock.set(2 * time.Hour)
		// Nothing that has expired is given to anyone, before anything is noticed.
		late := w.Subscribe(caller("unix:uid:a"))
		if a, err := late.Answer(t.Context()); !errors.Is(err, ErrPending) {
			t.Errorf("got %v, %v", ids(a), err)
		}
		late.Close()
		w.issuer.set(func(s *issuer) { s.down = nil })
		if a := answer(t, sub); !clock.now().Before(a.expires) {
			t.Errorf("expired at %s, it is %s", a.expires, clock.now())
		}
	})
}

func TestClockThatIsSetBack(t *testing.T) {
	clock := new(wall)
	inWorld(t, Config{Now: clock.now}, func(t *testing.T, w *world) {
		clock.set(24 * time.Hour)
		w.issuer.now = clock.now
		w.give(entry("a"), entry("b"))
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		answer(t, sub)
		w.issuer.set(func(s *issuer) { s.calls = nil; s.now = func() time.Time { return time.Now().Add(24 * time.Hour) } })
		// The issuer's clock is right: what it signs is not valid yet, by ours.
		clock.set(0)
		late := w.Subscribe(caller("unix:uid:a"))
		answer(t, late) // good for whose clock is right
		late.Close()
		silent(t, sub, 6*time.Hour)
		w.give(entry("a"), entry("b", func(e *registration.Entry) { e.DNSNames = []string{"b.test"} }))
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		if a, b := w.issuer.signed("a"), w.issuer.signed("b"); a != 0 || b != 1 {
			t.Errorf("signed %d and %d times with the clock set back", a, b)
		}
		// The clock is put right: what was overdue is renewed, soon and once.
		clock.set(24 * time.Hour)
		answer(t, sub)
		time.Sleep(time.Minute)
		if n := w.issuer.signed("a"); n != 1 {
			t.Errorf("signed %d times after the clock was put right", n)
		}
	})
}

// A clock that is set back puts off no retry: these go by another.
func TestRetriesDontGoByTheWallClock(t *testing.T) {
	clock := new(wall)
	inWorld(t, Config{Now: clock.now}, func(t *testing.T, w *world) {
		w.issuer.now = clock.now
		w.issuer.set(func(s *issuer) { s.down = errors.New("away") })
		w.give(entry("a"))
		time.Sleep(10 * time.Minute)
		clock.set(-24 * time.Hour)
		w.issuer.set(func(s *issuer) { s.down, s.calls = nil, nil })
		time.Sleep(2 * longestRetry)
		synctest.Wait()
		if n := w.issuer.signed("a"); n != 1 {
			t.Errorf("signed %d times in a minute", n)
		}
	})
}

// TestEntriesEndByThemselves is for agents whose issuer is away when they do.
func TestEntriesEndByThemselves(t *testing.T) {
	clock := new(wall)
	inWorld(t, Config{Now: clock.now}, func(t *testing.T, w *world) {
		w.issuer.now = clock.now
		end := time.Now().Add(10 * time.Minute)
		ends := func(e *registration.Entry) { e.Selectors, e.ExpiresAt = selectors("unix:uid:1"), end }
		w.give(entry("a", ends), entry("b", func(e *registration.Entry) { e.Selectors = selectors("unix:uid:1") }))
		sub := w.Subscribe(caller("unix:uid:1"))
		defer sub.Close()
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/a", "/b"}) {
			t.Errorf("got %v", got)
		}
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/b"}) {
			t.Errorf("got %v after its end", got)
		}
		if now := time.Now(); now.Before(end) || now.Sub(end) > 2*time.Second {
			t.Errorf("ended at %s, want %s", now, end)
		}
		if x := w.Explain(caller("unix:uid:1")); x.Matches[0].Withheld == "" {
			t.Errorf("not explained: %+v", x.Matches)
		}
		clock.set(-time.Hour)
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/a", "/b"}) {
			t.Errorf("got %v with the clock set back", got)
		}
	})
}

func TestAvailabilityTarget(t *testing.T) {
	for _, c := range []struct{ life, target, least, most time.Duration }{
		{72 * time.Hour, 48 * time.Hour, 24*time.Hour - 10*time.Minute, 24 * time.Hour},
		{50 * time.Hour, 48 * time.Hour, 23 * time.Hour, 27 * time.Hour}, // too short for it: half its life
		{72 * time.Hour, 0, 34 * time.Hour, 38 * time.Hour},
	} {
		t.Run(fmt.Sprint(c.life, c.target), func(t *testing.T) {
			for range 100 {
				if after := rotateAfter(c.life, c.target); after < c.least || after > c.most {
					t.Errorf("renewed after %s", after)
				}
			}
		})
	}
}
