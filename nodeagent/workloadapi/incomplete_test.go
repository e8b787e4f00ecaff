package workloadapi

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// docker is the standing of uid 1 by a docker attestor that may fail.
func docker(failure error, labels ...string) workloadattest.Result {
	r := workloadattest.Result{
		Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}},
		Reports:   []workloadattest.Report{{Plugin: "unix", Selectors: 1}, {Plugin: "docker", Selectors: len(labels), Err: failure}},
	}
	for _, l := range labels {
		r.Selectors = append(r.Selectors, registration.Selector{Type: "docker", Value: "label:" + l})
	}
	r.Selectors = registration.SortSelectors(r.Selectors)
	return r
}

func labelled(id, label string) registration.Entry {
	return registration.Entry{ID: id, SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/" + id), Selectors: []registration.Selector{{Type: "docker", Value: "label:" + label}}}
}

// longest is more than the longest time between two tries of an attestor.
const longest = 40 * time.Second

var errAway = errors.New("daemon is away")

// A container runtime that is away must not take identities away: PermissionDenied has clients drop theirs.
func TestGuardNobodyIsDeniedForAnAttestorsFailure(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, apply func(ids ...string), log *bytes.Buffer) {
		apply("2")
		c.is(docker(errAway))
		err := s.WatchX509Context(t.Context(), func(*workload.X509Context) error { return errEnough })
		wantStatus(t, "SVIDs", err, codes.Unavailable, "could not be attested")
		if !strings.Contains(log.String(), "daemon is away") {
			t.Errorf("the log says %s", log)
		}
		// With the attestor back, it is known that there is none.
		c.is(docker(nil))
		err = s.WatchX509Context(t.Context(), func(*workload.X509Context) error { return errEnough })
		wantStatus(t, "SVIDs, attested", err, codes.PermissionDenied, "no identity issued")
	})
	inJWTWorld(t, func(t *testing.T, w *jwtWorld) {
		w.sync()
		fetched, err := w.fetch(t.Context(), "", "shop")
		if err != nil {
			t.Fatal(err)
		}
		w.caller.is(docker(errAway))
		_, err = w.fetch(t.Context(), "spiffe://example.org/other", "shop")
		wantStatus(t, "another token", err, codes.Unavailable, "could not be attested")
		if _, err := w.fetch(t.Context(), "spiffe://example.org/a", "shop"); err != nil {
			t.Errorf("a token by what is known: %v", err)
		}
		w.caller.is(workloadattest.Result{Reports: docker(errAway).Reports})
		_, err = w.fetch(t.Context(), "", "shop")
		wantStatus(t, "tokens", err, codes.Unavailable, "could not be attested")
		if _, err := w.validate(t.Context(), fetched.Svids[0].Svid, "shop"); err != nil {
			t.Errorf("of the own domain: %v", err)
		}
		foreign, err := w.foreignToken()
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.validate(t.Context(), foreign, "shop")
		wantStatus(t, "of a domain that it may federate with", err, codes.Unavailable, "could not be attested")
	})
}

// A stream is kept with what it has while an attestor is away, and has the rest once that is back.
func TestStreamOutlastsAnAttestor(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, apply func(ids ...string), _ *bytes.Buffer) {
		s.apply(t, labelled("web", "web"), labelled("both", "web"))
		c.is(docker(nil, "web"))
		var got atomic.Value
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- s.WatchX509Context(ctx, func(c *workload.X509Context) error {
				got.Store(paths(c))
				return nil
			})
		}()
		check := func(what, want string) {
			t.Helper()
			synctest.Wait()
			if got := got.Load(); got != want {
				t.Errorf("%s: %v, want %s", what, got, want)
			}
		}
		check("at first", "/both /web")
		c.is(docker(errAway))
		s.apply(t, labelled("web", "web"))
		check("a change while it is away", "/both /web")
		time.Sleep(time.Hour)
		check("an hour later", "/both /web")
		c.is(docker(nil, "web"))
		time.Sleep(longest)
		check("when it is back", "/web")
		s.apply(t)
		synctest.Wait()
		select {
		case err := <-ended:
			wantStatus(t, "without an entry", err, codes.PermissionDenied, "no identity issued")
		default:
			t.Error("the stream goes on without an entry")
		}
		cancel()
	})
}

func TestStreamHasTheRestOnceAnAttestorIsBack(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, apply func(ids ...string), _ *bytes.Buffer) {
		own := registration.Entry{ID: "own", SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/own"), Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}}}
		s.apply(t, own, labelled("web", "web"))
		c.is(docker(errAway))
		var updates []string
		done := make(chan error, 1)
		go func() {
			done <- s.WatchX509Context(t.Context(), func(c *workload.X509Context) error {
				updates = append(updates, paths(c))
				if len(updates) == 2 {
					return errEnough
				}
				return nil
			})
		}()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := c.asked(); n > 40 {
			t.Errorf("attested %d times in 10 min", n)
		}
		// Its own entry goes: it keeps what it has, for there may be another.
		s.apply(t, labelled("web", "web"))
		synctest.Wait()
		c.is(docker(nil, "web"))
		if err := <-done; !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		if len(updates) != 2 || updates[0] != "/own" || updates[1] != "/web" {
			t.Errorf("updates %q", updates)
		}
	})
}

// What needs no attestor but those that work goes on: certificates are renewed.
func TestStreamGoesOnByWhatIsKnown(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, _ func(ids ...string), _ *bytes.Buffer) {
		own := registration.Entry{ID: "own", SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/own"), Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}}}
		s.apply(t, own)
		c.is(docker(nil, "web"))
		updates := make(chan string, 10)
		go s.WatchX509Context(t.Context(), func(c *workload.X509Context) error {
			updates <- paths(c) + c.Default().Hint
			return nil
		})
		if got := <-updates; got != "/own" {
			t.Errorf("at first %s", got)
		}
		c.is(docker(errAway))
		own.Hint = "new"
		s.apply(t, own)
		synctest.Wait()
		select {
		case got := <-updates:
			if got != "/ownnew" {
				t.Errorf("then %s", got)
			}
		default:
			t.Error("nothing was sent")
		}
	})
}

// A program that a process executes must not have what the one before had by making an attestor fail.
func TestGuardAnotherProgramHasNothingByAFailure(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, _ func(ids ...string), _ *bytes.Buffer) {
		good := registration.Entry{ID: "good", SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/good"), Selectors: []registration.Selector{{Type: "unix", Value: "path:/bin/good"}}}
		s.apply(t, good)
		as := func(path string, failure error) {
			r := workloadattest.Result{Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}}, Reports: []workloadattest.Report{{Plugin: "unix", Err: failure}}}
			if failure == nil {
				r.Selectors = append([]registration.Selector{{Type: "unix", Value: "path:" + path}}, r.Selectors...)
			}
			c.is(r)
		}
		as("/bin/good", nil)
		var updates atomic.Int32
		ended := make(chan error, 1)
		go func() {
			ended <- s.WatchX509Context(t.Context(), func(*workload.X509Context) error {
				updates.Add(1)
				return nil
			})
		}()
		synctest.Wait()
		as("/bin/evil", errors.New("read: input/output error"))
		good.Hint = "new"
		s.apply(t, good)
		time.Sleep(10 * time.Minute)
		if n := updates.Load(); n != 1 {
			t.Errorf("%d updates: it was given what is another's", n)
		}
		as("/bin/evil", nil)
		wantStatus(t, "once it is known", <-ended, codes.PermissionDenied, "no identity issued")
	})
}

func paths(c *workload.X509Context) string {
	var all []string
	for _, s := range c.SVIDs {
		all = append(all, s.ID.Path())
	}
	return strings.Join(all, " ")
}

// Who has no identity may verify, where that is allowed: with the keys of its own trust domain alone.
func TestUnauthenticatedVerifiers(t *testing.T) {
	inJWTWorld(t, func(t *testing.T, w *jwtWorld) {
		w.cfg.AllowUnauthenticatedVerifiers = true
		w.sync()
		w.caller.become("9", nil)
		keys := &jwtBundleStream{ctx: t.Context(), sent: make(chan []string)}
		go w.FetchJWTBundles(nil, keys)
		if got := <-keys.sent; len(got) != 1 || got[0] != "spiffe://example.org" {
			t.Errorf("without identity: %q", got)
		}
		// It gets one, and what goes with it; and loses it again.
		entries := w.state.Entries
		nine := entries[0]
		nine.ID, nine.Selectors = "nine", []registration.Selector{{Type: "unix", Value: "uid:9"}}
		w.state.Entries = append(append([]registration.Entry(nil), entries...), nine)
		w.sync()
		if got := <-keys.sent; len(got) != 2 {
			t.Errorf("with one: %q", got)
		}
		w.state.Entries = entries
		w.sync()
		if got := <-keys.sent; len(got) != 1 {
			t.Errorf("without again: %q", got)
		}
		w.state.JWT = map[spiffeid.TrustDomain]*jwtsvid.Bundle{w.cfg.TrustDomain: jwttest.New(t, "example.org", "k2").Bundle()}
		w.sync()
		if got := <-keys.sent; len(got) != 1 {
			t.Errorf("with another key: %q", got)
		}
		w.cfg.AllowUnauthenticatedVerifiers = false
		err := w.FetchJWTBundles(nil, &jwtBundleStream{ctx: t.Context()})
		wantStatus(t, "where it is not", err, codes.PermissionDenied, "no identity issued")
	})
}
