package svidcache

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// holding is a world whose issuer has been asked for a and b together, which
// nobody waits for, and answers no request but for a alone.
func holding(t *testing.T, test func(t *testing.T, w *world, release func())) {
	t.Helper()
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		hold := make(chan struct{})
		w.issuer.set(func(s *issuer) { s.hold, s.free = hold, "a" })
		w.give(entry("a"), entry("b"))
		test(t, w, func() {
			close(hold)
			synctest.Wait()
		})
	})
}

func TestWhoWaitsOvertakesWhatNobodyWaitsFor(t *testing.T) {
	holding(t, func(t *testing.T, w *world, release func()) {
		began := time.Now()
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		first := answer(t, sub)
		if took := time.Since(began); took > 0 {
			t.Errorf("waited %s for a request that nobody waits for", took)
		}
		other := w.Subscribe(caller("unix:uid:a"))
		defer other.Close()
		if answer(t, other) != first {
			t.Error("another stream is given another answer")
		}
		release()
		silent(t, sub, time.Minute) // the slower SVID is none that anyone needs
		if n := w.issuer.signed("a"); n != 2 {
			t.Errorf("asked for %d times, want 2", n)
		}
		if stats := w.Stats(); stats.SVIDs != 2 || stats.Pending != 0 {
			t.Errorf("%+v", stats)
		}
		time.Sleep(35 * time.Minute)
		if answer(t, sub) == first {
			t.Error("not renewed")
		}
	})
}

func TestOvertakenFailureCountsForNothing(t *testing.T) {
	holding(t, func(t *testing.T, w *world, release func()) {
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		answer(t, sub)
		w.issuer.set(func(s *issuer) { s.entries = nil })
		release()
		if stats := w.Stats(); stats.Failing != 1 {
			t.Errorf("%d fail, want b alone", stats.Failing)
		}
	})
}

func TestEntryGoesWhileTwoAreAskedFor(t *testing.T) {
	holding(t, func(t *testing.T, w *world, release func()) {
		w.issuer.set(func(s *issuer) { s.free = "" })
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		synctest.Wait()
		if n := w.issuer.signed("a"); n != 2 {
			t.Errorf("asked for %d times, want 2", n)
		}
		w.give(entry("b"))
		release()
		if _, err := sub.Answer(t.Context()); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("error %v", err)
		}
		if stats := w.Stats(); stats.SVIDs != 1 {
			t.Errorf("%+v", stats)
		}
	})
}
