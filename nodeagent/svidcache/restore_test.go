package svidcache

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/keep"
)

// restarted is another cache, of the same agent, started while the issuer is away.
func (w *world) restarted(t *testing.T, test func(c *Cache, kept *keep.State)) {
	t.Helper()
	synctest.Wait()
	// Through the file: what is restored is what was read.
	dir := t.TempDir()
	agent := spiffeid.RequireFromString("spiffe://example.org/spire/agent/a")
	kept := w.Holds()
	kept.Agent, kept.Saved = agent, time.Now()
	if err := keep.Open(dir).Save(kept); err != nil {
		t.Fatal(err)
	}
	kept, err := keep.Open(dir).Load(agent)
	if err != nil {
		t.Fatal(err)
	}
	w.issuer.set(func(s *issuer) { s.down, s.calls = errors.New("away"), nil })
	c := New(w.cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	defer running.Wait()
	defer cancel()
	test(c, kept)
}

func TestRestartWhileTheIssuerIsAway(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.issuer.anyInstance = true
		tmpl := template(t, "t", "/app/{{docker:label:app}}")
		a := entry("a", func(e *registration.Entry) { e.Hint = "h" })
		w.give(a, entry("b"), tmpl)
		sub := w.Subscribe(caller("unix:uid:1", "docker:label:app:web"))
		defer sub.Close()
		web := answer(t, sub)
		w.restarted(t, func(c *Cache, kept *keep.State) {
			// Who comes before is held, and not told that there is nothing.
			done := c.Expect()
			early := c.Subscribe(caller("unix:uid:a"))
			defer early.Close()
			go func() {
				time.Sleep(time.Second)
				c.Restore(kept, time.Now())
				done()
			}()
			if got := answer(t, early); got.X509Context().SVIDs[0].ID.Path() != "/a" || got.X509Context().SVIDs[0].Hint != "h" {
				t.Errorf("got %v", ids(got))
			}
			late := c.Subscribe(caller("unix:uid:1", "docker:label:app:web"))
			defer late.Close()
			if got := answer(t, late); !bytes.Equal(got.identities[0].svid.keyDER, web.identities[0].svid.keyDER) {
				t.Error("the instance has another key")
			}
			// The issuer alone knows who has no identity.
			other := c.Subscribe(caller("unix:uid:other"))
			defer other.Close()
			if _, err := other.Answer(t.Context()); !errors.Is(err, ErrNotSynced) {
				t.Errorf("who has none: %v", err)
			}
			if _, err := c.Identities(caller("unix:uid:other")); !errors.Is(err, ErrNotSynced) {
				t.Errorf("who has none: %v", err)
			}
			if c.Holds() != nil {
				t.Error("what was kept is kept anew before the issuer has spoken")
			}
			select {
			case <-c.Synced():
				t.Error("in sync with nobody")
			default:
			}

			// The issuer is back: nothing is signed that is there, and b is gone.
			w.issuer.set(func(s *issuer) { s.down, s.calls = nil, nil })
			w.state.Entries = []registration.Entry{a, tmpl}
			c.Apply(w.state)
			synctest.Wait()
			if n := w.issuer.asked(); n != 0 {
				t.Errorf("%d signed though they were there", n)
			}
			if _, err := other.Answer(t.Context()); !errors.Is(err, ErrNoIdentity) {
				t.Errorf("who has none: %v", err)
			}
			if _, err := c.Identities(caller("unix:uid:b")); !errors.Is(err, ErrNoIdentity) {
				t.Errorf("whose entry is gone: %v", err)
			}
			if n := len(c.Holds().SVIDs); n != 2 {
				t.Errorf("%d SVIDs to keep, want 2", n)
			}
		})
	})
}

func TestWhatIsNotRestored(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"), entry("ends", func(e *registration.Entry) { e.ExpiresAt = time.Now().Add(30 * time.Minute) }))
		w.restarted(t, func(c *Cache, kept *keep.State) {
			time.Sleep(45 * time.Minute) // the entry has ended, the SVIDs have not
			kept.SVIDs = append(kept.SVIDs,
				keep.SVID{EntryID: "a", Chain: []byte("x"), Key: []byte("x")},
				keep.SVID{EntryID: "gone", Chain: kept.SVIDs[0].Chain, Key: kept.SVIDs[0].Key})
			slices.Reverse(kept.SVIDs)
			c.Restore(kept, time.Now())
			sub := c.Subscribe(caller("unix:uid:a"))
			defer sub.Close()
			answer(t, sub)
			if _, err := c.Identities(caller("unix:uid:ends")); !errors.Is(err, ErrNotSynced) {
				t.Errorf("an entry that has ended: %v", err)
			}
			if s := c.Stats(); s.SVIDs != 1 {
				t.Errorf("%d SVIDs", s.SVIDs)
			}
		})
		w.restarted(t, func(c *Cache, kept *keep.State) {
			time.Sleep(time.Hour)
			c.Restore(kept, time.Now())
			sub := c.Subscribe(caller("unix:uid:a"))
			defer sub.Close()
			if a, err := sub.Answer(t.Context()); !errors.Is(err, ErrPending) {
				t.Errorf("after it expired: %v, %v", ids(a), err)
			}
		})
		w.restarted(t, func(c *Cache, kept *keep.State) {
			c.Apply(w.state)
			synctest.Wait()
			before := c.Stats()
			c.Restore(kept, time.Now())
			if c.Stats() != before {
				t.Error("what was kept replaced what the issuer has told")
			}
		})
	})
}

// Expecting what does not come is over at last.
func TestExpectationThatFails(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		done := w.Expect()
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		began := time.Now()
		if _, err := sub.Answer(t.Context()); !errors.Is(err, ErrNotSynced) || time.Since(began) != patience {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		began = time.Now()
		if err := w.Known(t.Context()); !errors.Is(err, ErrNotSynced) || time.Since(began) != patience {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		time.AfterFunc(time.Second, done)
		began = time.Now()
		if _, err := sub.Answer(t.Context()); !errors.Is(err, ErrNotSynced) || time.Since(began) != time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if err := w.Known(t.Context()); !errors.Is(err, ErrNotSynced) || time.Since(began) != time.Second {
			t.Errorf("%v", err)
		}
		w.give(entry("a"))
		if err := w.Known(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
