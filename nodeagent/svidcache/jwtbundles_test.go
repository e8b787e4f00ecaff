package svidcache

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// giveKeys gives the keys beside what was given before.
func (w *world) giveKeys(bundles ...*jwtsvid.Bundle) {
	w.state.JWT = make(map[spiffeid.TrustDomain]*jwtsvid.Bundle)
	for _, b := range bundles {
		w.state.JWT[b.TrustDomain()] = b
	}
	w.Apply(w.state)
}

// domains are the names of the bundles in an encoded answer, sorted.
func domains(t *testing.T, b *JWTBundles) []string {
	t.Helper()
	raw, err := b.JWTBundlesResponse()
	if err != nil {
		t.Fatal(err)
	}
	resp := new(workloadpb.JWTBundlesResponse)
	if err := proto.Unmarshal(raw, resp); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range resp.Bundles {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestJWTBundlesArePushedOnChangeOnly(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		a, other, unused := jwttest.New(t, "example.org", "a"), jwttest.New(t, "other.org", "a"), jwttest.New(t, "unused.org", "a")
		w.give(entry("1", func(e *registration.Entry) {
			e.Selectors, e.FederatesWith = selectors("unix:uid:1"), []spiffeid.TrustDomain{other.TrustDomain}
		}))
		w.giveKeys(a.Bundle(), other.Bundle(), unused.Bundle())
		sub := w.SubscribeBundles(caller("unix:uid:1"))
		defer sub.Close()
		first, err := sub.JWTBundles(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := domains(t, first); !slices.Equal(got, []string{"spiffe://example.org", "spiffe://other.org"}) {
			t.Errorf("bundles of %v", got)
		}
		if first.Bundle(unused.TrustDomain) != nil {
			t.Error("a bundle that no entry federates with")
		}
		x509, err := sub.Bundles(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		next := make(chan *JWTBundles)
		go func() {
			b, _ := sub.JWTBundles(t.Context())
			next <- b
		}()
		synctest.Wait()
		w.giveKeys(a.Bundle(), other.Bundle())
		time.Sleep(time.Minute)
		select {
		case <-next:
			t.Fatal("pushed without a change")
		default:
		}
		w.giveKeys(a.Bundle(jwttest.New(t, "example.org", "b")), other.Bundle())
		if b := <-next; !b.Bundle(a.TrustDomain).Has("b") {
			t.Error("not the new key")
		}
		if now := sub.cohort.group.set.trust.x509; now != x509 {
			t.Error("a JWT key changed the X.509 bundles")
		}
	})
}

func TestJWTBundlesOfCallers(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		if _, err := w.JWTBundlesOf(caller("unix:uid:1")); !errors.Is(err, ErrNotSynced) {
			t.Errorf("before the first sync: %v", err)
		}
		a, other := jwttest.New(t, "example.org", "a"), jwttest.New(t, "other.org", "a")
		w.give(entry("1", func(e *registration.Entry) {
			e.Selectors, e.FederatesWith = selectors("unix:uid:1"), []spiffeid.TrustDomain{other.TrustDomain}
		}))
		if b, err := w.JWTBundlesOf(caller("unix:uid:1")); err != nil || len(domains(t, b)) != 1 {
			t.Errorf("without keys: %v", err)
		}
		w.giveKeys(a.Bundle(), other.Bundle())
		for uid, want := range map[string]bool{"unix:uid:1": true, "unix:uid:2": false} {
			b, err := w.JWTBundlesOf(caller(uid))
			if err != nil || !b.Bundle(a.TrustDomain).Has("a") || (b.Bundle(other.TrustDomain) != nil) != want {
				t.Errorf("%s: %+v, %v", uid, b, err)
			}
		}
	})
}

func TestIdentities(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		if _, err := w.Identities(caller("unix:uid:1")); !errors.Is(err, ErrNotSynced) {
			t.Errorf("before the first sync: %v", err)
		}
		tmpl := template(t, "t", "/app/{{docker:label:app}}")
		plain := entry("1", func(e *registration.Entry) { e.Selectors = selectors("unix:uid:1") })
		w.give(tmpl, plain)
		if _, err := w.Identities(caller("unix:uid:2")); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("nobody's: %v", err)
		}
		web := caller("unix:uid:1", "docker:label:app:web")
		sub := w.SubscribeBundles(web) // makes the instance
		defer sub.Close()
		tmpl.JWTSVIDIncludeJTI, tmpl.JWTSVIDTTL, tmpl.Revision = true, time.Minute, 1
		w.give(tmpl, plain)
		got, err := w.Identities(web)
		if err != nil || len(got) != 2 || got[0].ID != "1" {
			t.Fatalf("got %v, %v", got, err)
		}
		if e := got[1]; e.ID != "t~/app/web" || e.SPIFFEID.Path() != "/app/web" || !e.JWTSVIDIncludeJTI || e.JWTSVIDTTL != time.Minute {
			t.Errorf("instance %+v", e)
		}
	})
}
