package upstream_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// pushed starts an agent that would poll once an hour.
func pushed(t *testing.T, s *spiretest.Server, change ...func(*upstream.Config)) *agent {
	t.Helper()
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	cfg.SyncInterval = time.Hour
	for _, c := range change {
		c(&cfg)
	}
	return start(t, cfg)
}

func has(ids ...string) func(upstream.Update) bool {
	return func(u upstream.Update) bool { return slices.Equal(entryIDs(u), ids) }
}

func TestChangesArePushed(t *testing.T) {
	s := spiretest.New(t, "example.org")
	other := testca.New(t, "other.org")
	s.Put(entry(s, "tok", "a"))
	a := pushed(t, s)
	first := a.await("the first state", has("a"))
	s.Put(entry(s, "tok", "b"))
	second := a.await("a new entry", has("a", "b"))
	if second.Whole || second.Bundle != first.Bundle {
		t.Error("more was handed on than the change")
	}
	s.Delete("a")
	a.await("an entry less", has("b"))
	e := entry(s, "tok", "b")
	e.Revision, e.Hint, e.FederatesWith = 1, "new", []spiffeid.TrustDomain{other.TrustDomain}
	s.Put(e)
	a.await("a changed entry", func(u upstream.Update) bool { return u.Entries[0].Hint == "new" })
	s.Federate(other.Bundle())
	federated := a.await("a federated bundle", func(u upstream.Update) bool { return len(u.Federated) == 1 })
	ca := s.AddAuthority()
	s.Taint(ca.Cert)
	tainted := a.await("a tainted authority", func(u upstream.Update) bool { return len(u.Tainted) == 1 })
	if len(tainted.Bundle.X509Authorities()) != 2 || !tainted.Tainted[0].Equal(ca.Cert) || tainted.Federated[other.TrustDomain] != federated.Federated[other.TrustDomain] {
		t.Errorf("bundles %v, tainted %v", tainted.Bundle, tainted.Tainted)
	}
	s.Unfederate(other.TrustDomain)
	a.await("a federated bundle less", func(u upstream.Update) bool { return len(u.Federated) == 0 })
	contact := a.Contact()
	if !contact.Push || contact.Err != nil || contact.Last.IsZero() || contact.Address != s.Addr {
		t.Errorf("contact %+v", contact)
	}
	if n := s.Calls("SyncAuthorizedEntries"); n != 0 {
		t.Errorf("polled %d times", n)
	}
	a.stop()
	if a.running.Wait(); a.whole != 1 {
		t.Errorf("%d updates were whole", a.whole)
	}
}

// Wherever a stream is cut, what the agent holds is whole, and it goes on from
// there without being told all anew.
func TestStreamsCutAnywhere(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.ChangeSize = 2 })
	old := make([]registration.Entry, 5)
	for i := range old {
		old[i] = entry(s, "tok", fmt.Sprintf("e%d", i))
	}
	s.Put(old...)
	a := pushed(t, s)
	a.await("the first state", func(u upstream.Update) bool { return len(u.Entries) == 5 })
	want := "" // hint of all
	torn := func(u upstream.Update) bool {
		return slices.ContainsFunc(u.Entries, func(e registration.Entry) bool { return e.Hint != u.Entries[0].Hint })
	}
	for cut := 1; cut <= 4; cut++ {
		s.Set(func(sw *spiretest.Switches) { sw.CutAfter = cut })
		want = fmt.Sprintf("after %d", cut)
		for i := range old {
			old[i].Hint = want
		}
		s.Put(old...)
		a.await(want, func(u upstream.Update) bool {
			if torn(u) {
				t.Error("half a change was handed on")
			}
			return u.Entries[0].Hint == want
		})
	}
	a.stop()
	if a.running.Wait(); a.whole != 1 {
		t.Errorf("%d updates were whole", a.whole)
	}
}

func TestAnIssuerThatForgotTellsAll(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(entry(s, "tok", "a"), entry(s, "tok", "b"))
	a := pushed(t, s)
	a.await("the first state", has("a", "b"))
	s.Set(func(sw *spiretest.Switches) { sw.Forget, sw.CutAfter = true, 1 })
	s.Delete("a")
	s.Put(entry(s, "tok", "c"))
	a.await("all anew", func(u upstream.Update) bool { return u.Whole && has("b", "c")(u) })
}

func TestASilentStreamIsDead(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.Heartbeat = 20 * time.Millisecond })
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	a := startWith(t, cfg, func(c *upstream.Client) { c.Hurry(500*time.Millisecond, time.Hour) })
	a.synced()
	a.drain()
	watches := s.Calls("Watch")
	s.Set(func(sw *spiretest.Switches) { sw.Mute = true })
	s.Await("another stream", func() bool { return s.Calls("Watch") > watches })
	s.Set(func(sw *spiretest.Switches) { sw.Mute = false })
}

func TestDenialsEndTheStreamAndTheAgent(t *testing.T) {
	s := spiretest.New(t, "example.org")
	a := pushed(t, s)
	a.synced()
	a.drain()
	s.Ban(s.AgentID("tok"))
	refused, ok := errors.AsType[*upstream.RefusedError](a.end())
	if !ok || refused.Reason != types.PermissionDeniedDetails_AGENT_BANNED {
		t.Errorf("ended with %v", a.end())
	}
}

// The stream goes over to the agent's next SVID: the issuer ends that of the one
// before.
func TestStreamFollowsARenewal(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := enrolled(t, s, "tok", 30*time.Minute)
	first, _ := s.Serials(s.AgentID("tok"))
	cfg := config(s, dir, "")
	cfg.SyncInterval = time.Hour
	log := newSignal("cannot sync")
	cfg.Log = logTo(log)
	a := start(t, cfg)
	a.synced()
	a.drain()
	s.Await("the renewed SVID in use", func() bool {
		now, next := s.Serials(s.AgentID("tok"))
		return now.Cmp(first) != 0 && next == nil
	})
	s.Put(entry(s, "tok", "a"))
	s.Await("streams", func() bool { return s.Calls("Watch") >= 2 })
	select {
	case <-log.seen:
		t.Error("the renewal was told of as an outage")
	default:
	}
}

func TestPollsAnIssuerWithoutTheStreamUntilItHasOne(t *testing.T) {
	s := spiretest.New(t, "example.org")
	pollOnly(s)
	s.Put(entry(s, "tok", "a"))
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	a := start(t, cfg)
	a.await("a poll", has("a"))
	for range 3 {
		if u := a.synced(); u.Whole {
			t.Error("a poll handed on everything, though nothing changed")
		}
	}
	if n := s.Calls("Watch"); n > 2 {
		t.Errorf("asked %d times for what is not there", n)
	}
	if a.Contact().Push {
		t.Error("the contact is by push")
	}
	s.Stop()
	s.Set(func(sw *spiretest.Switches) { sw.NoChanges = false })
	s.Put(entry(s, "tok", "b"))
	s.Start()
	a.await("the upgraded issuer's stream", func(upstream.Update) bool { return a.Contact().Push })
	polls := s.Calls("SyncAuthorizedEntries")
	s.Put(entry(s, "tok", "c"))
	a.await("a change", has("a", "b", "c"))
	if n := s.Calls("SyncAuthorizedEntries"); n > polls {
		t.Errorf("polled %d times beside the stream", n-polls)
	}
}
