package svidcache

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

func TestExplain(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		if x := w.Explain(caller("unix:uid:1")); len(x.Matches)+len(x.Near)+x.Entries > 0 {
			t.Errorf("of no entries: %+v", x)
		}
		with := func(change func(*registration.Entry), texts ...string) func(*registration.Entry) {
			return func(e *registration.Entry) {
				e.Selectors = registration.SortSelectors(selectors(texts...))
				if change != nil {
					change(e)
				}
			}
		}
		hint := func(created int64) func(*registration.Entry) {
			return func(e *registration.Entry) { e.Hint, e.CreatedAt = "h", time.Unix(created, 0) }
		}
		tmpl := template(t, "t", "/app/{{docker:label:app}}")
		w.issuer.anyInstance = true
		w.give(
			entry("m1", with(hint(1), "unix:uid:1")), entry("m2", with(hint(2), "unix:uid:1")),
			entry("stored", with(func(e *registration.Entry) { e.StoreSVID = true }, "unix:uid:1")),
			entry("ended", with(func(e *registration.Entry) { e.ExpiresAt = time.Now() }, "unix:uid:1")),
			entry("n1", with(nil, "unix:uid:1", "unix:path:/x")),
			entry("n2", with(nil, "unix:uid:1", "unix:path:/y", "unix:gid:2")),
			entry("alias", with(nil, "spiffe_id:spiffe://example.org/spire/agent/x")),
			entry("n3", with(nil, "a:1", "b:2", "c:3")), entry("n4", with(nil, "a:1", "b:2", "c:4")),
			entry("n5", with(nil, "a:1", "b:2", "c:5")), entry("n6", with(nil, "a:1", "b:2", "c:6")), tmpl)
		x := w.Explain(caller("unix:uid:1", "unix:gid:2"))
		if x.Entries != 12 {
			t.Errorf("%d entries", x.Entries)
		}
		for id, want := range map[string]string{
			"ended": "ended at", "m1": "", "m2": `entry m1 has the same hint, "h"`, "stored": "store_svid", "t": "no selector docker:label:app:",
		} {
			i := slices.IndexFunc(x.Matches, func(n Near) bool { return n.Entry.ID == id })
			if i < 0 || !strings.Contains(x.Matches[i].Withheld, want) || (want == "") != (x.Matches[i].Withheld == "") {
				t.Errorf("%s: %+v", id, x.Matches)
			}
		}
		if len(x.Matches) != 5 {
			t.Errorf("%d matches", len(x.Matches))
		}
		var near []string
		for _, n := range x.Near {
			near = append(near, n.Entry.ID+strings.Repeat("-", len(n.Missing)))
		}
		if diff := cmp.Diff([]string{"n1-", "n2-", "n3---", "n4---", "n5---"}, near); diff != "" {
			t.Error(diff)
		}
		if got := x.Near[0].Missing; !slices.Equal(got, selectors("unix:path:/x")) {
			t.Errorf("missing %v", got)
		}
		x = w.Explain(caller("unix:uid:1", "docker:label:app:web"))
		if i := slices.IndexFunc(x.Matches, func(n Near) bool { return n.Entry.ID == "t~/app/web" }); i < 0 || x.Matches[i].Entry.SPIFFEID.Path() != "/app/web" {
			t.Errorf("%+v", x.Matches)
		}
		only := caller("unix:uid:1", "lanyard:socket:web")
		only.Only = selectors("lanyard:socket:web")[0]
		if x = w.Explain(only); !strings.Contains(x.Matches[1].Withheld, "lanyard:socket:web") {
			t.Errorf("%+v", x.Matches)
		}
	})
}

func TestExplainTellsTheState(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		state := func() string { return w.Explain(caller("unix:uid:a")).Matches[0].State }
		w.issuer.set(func(s *issuer) { s.hold = make(chan struct{}) })
		w.give(entry("a"))
		if got := state(); got != "being issued" {
			t.Errorf("%q", got)
		}
		w.issuer.set(func(s *issuer) {
			close(s.hold)
			s.hold, s.otherID = nil, spiffeid.RequireFromString("spiffe://example.org/other")
		})
		synctest.Wait()
		if got := state(); !strings.HasPrefix(got, "refused by the issuer: ") || !strings.Contains(got, "/other") {
			t.Errorf("%q", got)
		}
		w.issuer.set(func(s *issuer) { s.otherID = spiffeid.ID{} })
		time.Sleep(longestRetry * 2)
		if got := state(); !strings.HasPrefix(got, "served until 2000-01-01T01:") {
			t.Errorf("%q", got)
		}
		w.issuer.set(func(s *issuer) { s.down = errors.New("away") })
		time.Sleep(40 * time.Minute)
		if got := state(); !strings.HasPrefix(got, "served until 2000-01-01T01:") || !strings.Contains(got, "not renewed: ") {
			t.Errorf("%q", got)
		}
		if s := w.Stats(); s.Failing != 1 || s.SVIDs != 1 || s.Pending != 0 || s.NextExpiry.IsZero() {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Hour)
		if s := w.Stats(); s.Failing != 1 || s.SVIDs != 0 || s.Pending != 1 || s.Expired != 1 || !s.NextExpiry.IsZero() {
			t.Errorf("%+v", s)
		}
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		w.issuer.set(func(s *issuer) { s.down = nil })
		w.Reached()
		answer(t, sub)
		if s := w.Stats(); s != (Stats{Entries: 1, SVIDs: 1, Streams: 1, Groups: 1, NextExpiry: s.NextExpiry}) {
			t.Errorf("%+v", s)
		}
	})
}

// A caller over one workload's socket is given that workload's identities alone.
func TestOnly(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("shared", func(e *registration.Entry) { e.Selectors = selectors("unix:uid:1") }),
			entry("web", func(e *registration.Entry) { e.Selectors = selectors("lanyard:socket:web", "unix:uid:1") }))
		who := caller("unix:uid:1", "lanyard:socket:web")
		both := w.Subscribe(who)
		defer both.Close()
		if got := ids(answer(t, both)); !slices.Equal(got, []string{"/shared", "/web"}) {
			t.Errorf("got %v", got)
		}
		who.Only = selectors("lanyard:socket:web")[0]
		if !both.Reselect(who) {
			t.Error("the same as before")
		}
		if got := ids(answer(t, both)); !slices.Equal(got, []string{"/web"}) {
			t.Errorf("got %v", got)
		}
		if got, err := w.Identities(who); err != nil || len(got) != 1 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestBundlesWithoutIdentity(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		if _, _, _, err := w.AllBundles(); !errors.Is(err, ErrNotSynced) {
			t.Error(err)
		}
		if _, _, _, err := w.OwnBundles(); !errors.Is(err, ErrNotSynced) {
			t.Error(err)
		}
		w.give(entry("a"))
		other, keys := testca.New(t, "other.org"), jwttest.New(t, "third.org", "k")
		x509, jwt, all, err := w.AllBundles()
		if err != nil || len(x509.ByDomain()) != 1 || len(jwt.ByDomain()) != 1 {
			t.Errorf("%v, %v, %v", x509, jwt, err)
		}
		_, _, own, _ := w.OwnBundles()
		w.state.Federated = map[spiffeid.TrustDomain]*x509bundle.Bundle{other.TrustDomain: other.Bundle()}
		w.state.JWT = map[spiffeid.TrustDomain]*jwtsvid.Bundle{keys.TrustDomain: keys.Bundle()}
		w.Apply(w.state)
		<-all
		select {
		case <-own:
			t.Error("another domain's bundle is the own")
		default:
		}
		x509, jwt, all, err = w.AllBundles()
		if err != nil || len(x509.ByDomain()) != 2 || len(jwt.ByDomain()) != 2 || !strings.Contains(string(jwt.ByDomain()[keys.TrustDomain]), `"k"`) {
			t.Errorf("%v, %v, %v", x509, jwt, err)
		}
		w.Apply(w.state)
		select {
		case <-all:
			t.Error("told without a change")
		default:
		}
		next := w.state.Bundle.Clone()
		next.AddX509Authority(testca.New(t, "example.org").Cert)
		w.state.Bundle = next
		w.Apply(w.state)
		<-own
		if x509, _, _, _ = w.OwnBundles(); len(x509.ByDomain()) != 1 || len(x509.parsed[x509.own].X509Authorities()) != 2 {
			t.Errorf("%v", x509.ByDomain())
		}
	})
}

// Federated bundles are in the first answer: there are clients that read no other.
func TestFederatedBundlesAreInTheFirstAnswer(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		other := testca.New(t, "other.org")
		w.state.Federated = map[spiffeid.TrustDomain]*x509bundle.Bundle{other.TrustDomain: other.Bundle()}
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		w.give(entry("a", func(e *registration.Entry) { e.FederatesWith = []spiffeid.TrustDomain{other.TrustDomain} }))
		if first := answer(t, sub); len(first.X509Context().Bundles) != 2 || len(first.Bundles().ByDomain()) != 2 {
			t.Errorf("bundles of %v", first.X509Context().Bundles)
		}
	})
}

// A whole update that says nothing new tells nobody, and has nothing signed.
func TestWholeUpdateOfTheSame(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"), entry("b"), template(t, "t", "/x/{{unix:gid}}"))
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		answer(t, sub)
		version := w.Version()
		w.Apply(w.state)
		silent(t, sub, time.Minute)
		if w.Version() != version || w.issuer.signed("a") != 1 {
			t.Errorf("version %d, was %d", w.Version(), version)
		}
	})
}

// The parent that new entries best have is an alias, if all others have it or there is nothing else.
func TestExplainNamesTheParentOfEntries(t *testing.T) {
	node, agent := spiffeid.RequireFromString("spiffe://example.org/node"), spiffeid.RequireFromString("spiffe://example.org/spire/agent/a")
	below := func(e *registration.Entry) { e.ParentID = node }
	alias := entry("alias", func(e *registration.Entry) {
		e.SPIFFEID, e.Selectors = node, selectors("spiffe_id:"+agent.String())
	})
	for name, c := range map[string]struct {
		entries []registration.Entry
		want    spiffeid.ID
	}{
		"nothing":        {nil, spiffeid.ID{}},
		"alias alone":    {[]registration.Entry{alias}, node},
		"below alias":    {[]registration.Entry{alias, entry("a", below), entry("b", below)}, node},
		"below agent":    {[]registration.Entry{alias, entry("a"), entry("b")}, agent},
		"here and there": {[]registration.Entry{alias, entry("a"), entry("b", below)}, spiffeid.ID{}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Config{}, func(t *testing.T, w *world) {
				w.give(c.entries...)
				if got := w.Explain(caller("unix:uid:1")).Parent; got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
			})
		})
	}
}
