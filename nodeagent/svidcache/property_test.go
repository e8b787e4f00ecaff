package svidcache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
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
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// chaos changes what an agent is told, at random, from few parts: so that all of
// them meet.
type chaos struct {
	*rand.Rand
	domains []*testca.CA
	keys    []*jwttest.Authority
	tmpls   []registration.Template
	entries map[string]registration.Entry
	state   upstream.Update
}

func (x *chaos) some(most int) []registration.Selector {
	var sel []registration.Selector
	for range 1 + x.IntN(most) {
		sel = append(sel, registration.Selector{Type: "docker", Value: fmt.Sprintf("label:l%d:v%d", x.IntN(3), x.IntN(2))})
	}
	return registration.SortSelectors(sel)
}

func (x *chaos) entry(id string) registration.Entry {
	return entry(id, func(e *registration.Entry) {
		e.Selectors = x.some(2)
		e.Revision = int64(x.IntN(3))
		e.CreatedAt = time.Unix(1000+int64(x.IntN(2)), 0)
		maybe := func() bool { return x.IntN(5) == 0 }
		if maybe() {
			e.FederatesWith = []spiffeid.TrustDomain{x.domains[1+x.IntN(2)].TrustDomain}
		}
		if maybe() {
			e.SPIFFEID, e.Template = spiffeid.ID{}, x.tmpls[x.IntN(len(x.tmpls))]
		} else if maybe() {
			e.SPIFFEID = spiffeid.RequireFromString("spiffe://example.org/other")
		}
		if maybe() {
			e.DNSNames = []string{fmt.Sprintf("d%d.test", x.IntN(2))}
		}
		if maybe() {
			e.ExpiresAt = time.Now().Add(-time.Second)
		}
		if x.IntN(4) == 0 {
			e.StoreSVID = true
		}
		e.Hint = []string{"", "", "h", "i"}[x.IntN(4)]
		e.DisableX509SVIDPrefetch, e.Admin = maybe(), maybe()
	})
}

// update returns the next thing the agent is told.
func (x *chaos) update() upstream.Update {
	u := upstream.Update{Whole: x.IntN(4) == 0}
	for range x.IntN(4) {
		id := fmt.Sprint("e", x.IntN(12))
		if _, ok := x.entries[id]; ok && x.IntN(3) == 0 {
			delete(x.entries, id)
			u.Removed = append(u.Removed, id)
		} else if !slices.Contains(u.Removed, id) {
			x.entries[id] = x.entry(id)
			u.Entries = append(u.Entries, x.entries[id])
		}
	}
	u.Entries = slices.DeleteFunc(u.Entries, func(e registration.Entry) bool { _, ok := x.entries[e.ID]; return !ok })
	if x.IntN(3) == 0 {
		own := x.domains[0].Bundle()
		if x.IntN(2) == 0 {
			own.AddX509Authority(x.domains[3].Cert)
		}
		x.state.Bundle, x.state.Federated, x.state.JWT = own, make(map[spiffeid.TrustDomain]*x509bundle.Bundle), make(map[spiffeid.TrustDomain]*jwtsvid.Bundle)
		for i, ca := range x.domains[1:3] {
			if x.IntN(2) == 0 {
				x.state.Federated[ca.TrustDomain], x.state.JWT[ca.TrustDomain] = ca.Bundle(), x.keys[1+i].Bundle()
			}
		}
	}
	if u.Whole {
		u.Entries, u.Removed = x.all(), nil
	}
	u.Bundle, u.Federated, u.JWT = x.state.Bundle, x.state.Federated, x.state.JWT
	return u
}

func (x *chaos) all() []registration.Entry {
	var all []registration.Entry
	for _, e := range x.entries {
		all = append(all, e)
	}
	return all
}

func (x *chaos) caller() Caller {
	c := Caller{Selectors: x.some(6)}
	if x.IntN(4) == 0 {
		c.Only = c.Selectors[0]
	}
	return c
}

// view is what a caller is given, in words.
type view struct {
	Err        error
	Identities []string
	Bundles    []string
	JWT        []string
}

// latest drains what there is to be told, and returns the last of it.
func latest(t *testing.T, sub *Subscription) view {
	t.Helper()
	var v view
	for v.Err == nil {
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
		_, v.Err = sub.Answer(ctx)
		cancel()
	}
	if !errors.Is(v.Err, context.DeadlineExceeded) {
		return v
	}
	v.Err = nil
	for _, id := range sub.answer.Identities() {
		v.Identities = append(v.Identities, fmt.Sprint(id.Entry.ID, id.Entry.SPIFFEID, id.Entry.Hint, id.Entry.Admin, id.Chain[0].DNSNames, id.Chain[0].URIs))
	}
	for td, b := range sub.answer.X509Context().Bundles {
		v.Bundles = append(v.Bundles, fmt.Sprint(td, len(b.X509Authorities())))
	}
	slices.Sort(v.Bundles)
	jwt, err := sub.c.JWTBundlesOf(sub.cohort.group.caller)
	if err != nil {
		t.Fatal(err)
	}
	for td, doc := range jwt.ByDomain() {
		v.JWT = append(v.JWT, td.String()+string(doc))
	}
	slices.Sort(v.JWT)
	return v
}

// TestAnswersAreThoseOfAFreshCache changes everything that can change, in steps and
// as a whole: what a subscription is told in the end is what it would be told by a
// cache that was given the last state at once.
func TestAnswersAreThoseOfAFreshCache(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, Config{MaxSize: 4}, func(t *testing.T, w *world) { fresh(t, w, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func fresh(t *testing.T, w *world, rnd *rand.Rand) {
	long := testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(100000*time.Hour))
	x := &chaos{Rand: rnd, entries: make(map[string]registration.Entry)}
	x.domains = []*testca.CA{w.issuer.ca, testca.New(t, "b.org", long), testca.New(t, "c.org", long), testca.New(t, "example.org", long)}
	for _, td := range []string{"example.org", "b.org", "c.org"} {
		x.keys = append(x.keys, jwttest.New(t, td, "k"))
	}
	for _, path := range []string{"/t/{{docker:label:l0}}", "/t/{{docker:label:l1}}", "/u/{{docker:label:l1}}/{{docker:label:l0}}"} {
		x.tmpls = append(x.tmpls, template(t, "t", path).Template)
	}
	x.state.Bundle = w.issuer.ca.Bundle()
	w.issuer.ttl, w.issuer.anyInstance = 10000*time.Hour, true
	var subs []*Subscription
	for range 12 {
		subs = append(subs, w.Subscribe(x.caller()))
	}
	var running sync.WaitGroup
	defer running.Wait()
	for step := range 25 {
		u := x.update()
		w.issuer.set(func(s *issuer) {
			s.entries = make(map[string]registration.Entry)
			for id, e := range x.entries {
				s.entries[id] = e
			}
		})
		if step == 0 {
			u.Whole, u.Entries = true, x.all()
		}
		w.Apply(u)
		if i := rnd.IntN(len(subs)); rnd.IntN(2) == 0 {
			subs[i].Reselect(x.caller())
		} else {
			subs[i].Close()
			subs[i] = w.Subscribe(x.caller())
		}
		if rnd.IntN(3) > 0 {
			continue // another change before anything has settled
		}
		synctest.Wait()
		other := New(w.cfg)
		ctx, cancel := context.WithCancel(t.Context())
		running.Go(func() { other.Run(ctx) })
		defer cancel() // also where the test ends here
		u.Whole, u.Entries, u.Removed = true, x.all(), nil
		other.Apply(u)
		for i, sub := range subs {
			want := other.Subscribe(sub.cohort.group.caller)
			a, b := latest(t, want), latest(t, sub)
			if diff := cmp.Diff(a, b, cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })); diff != "" {
				t.Fatalf("step %d, subscription %d, %v (fresh -, this +):\n%s", step, i, sub.cohort.group.caller, diff)
			}
			want.Close()
		}
		cancel()
		w.sound(t)
	}
	for _, sub := range subs {
		sub.Close()
	}
	w.sound(t)
	if w.Stats().Streams+w.Stats().Groups+len(w.sets)+len(w.audience) > 0 {
		t.Errorf("subscriptions are left: %+v", w.Stats())
	}
}

// sound checks that each record is where it belongs.
func (w *world) sound(t *testing.T) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	active := 0
	check := func(r *record) {
		if r.gone {
			t.Errorf("%s is gone and is there", r.id)
		}
		if r.active() {
			active++
			if !r.live.busy && !w.rotations.has(r) && !w.urgent.has(r) && !w.bulk.has(r) {
				t.Errorf("%s is to have an SVID that nobody looks after", r.id)
			}
			if w.idle.has(r) != (r.live.demand == 0) || w.expiries.has(r) != (r.live.svid != nil) {
				t.Errorf("%s is not where it belongs", r.id)
			}
		}
		if r.live != nil && r.live.svid != nil && (r.isTemplate() || r.more().storeSVID || r.ended) {
			t.Errorf("%s has an SVID that nobody is to have", r.id)
		}
		if w.waiting.has(r) != (!r.active() && r.prefetchable()) {
			t.Errorf("%s waits in vain", r.id)
		}
	}
	for _, r := range w.records {
		check(r)
		for _, one := range r.instances() {
			check(one)
		}
	}
	if active != w.figures.active || len(w.idle.list) > w.cfg.MaxSize {
		t.Errorf("%d active, counted %d, %d of them idle", active, w.figures.active, len(w.idle.list))
	}
	for _, q := range []*queue{&w.rotations, &w.expiries, &w.urgent, &w.bulk, &w.idle, &w.waiting, &w.endings} {
		for i, r := range q.list {
			if int(*q.place(r)) != i+1 || i > 0 && q.less(r, q.list[(i-1)/2]) {
				t.Errorf("%s is out of order", r.id)
			}
		}
	}
}
