package registry

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

var testDomain = spiffeid.RequireTrustDomainFromString("lanyard.test")

func at(path string) spiffeid.ID { return spiffeid.RequireFromPath(testDomain, path) }

// world is a registry that is told, batch by batch, what a store would hold.
type world struct {
	*Registry
	t       testing.TB
	now     time.Time
	rev     store.Revision
	serial  int64
	entries map[string]registration.Entry
	agents  map[string]*storepb.Agent
	own     *types.Bundle
	others  map[string]*types.Bundle
}

func newWorld(t testing.TB) *world {
	w := &world{t: t}
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), TrustDomain: testDomain, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	w.begin(st)
	return w
}

// begin makes a new world over a store, of which only the clock is used.
func (w *world) begin(st *store.Store) {
	w.now, w.rev = time.Unix(1_800_000_000, 0), 10
	w.entries, w.agents, w.others = map[string]registration.Entry{}, map[string]*storepb.Agent{}, map[string]*types.Bundle{}
	w.Registry = New(st, nil)
	w.own = &types.Bundle{TrustDomain: testDomain.Name(), SequenceNumber: 1}
	w.relist()
}

// relist has the registry read all of the store, as after a compaction.
func (w *world) relist() {
	w.rev++
	snap := store.Snapshot{Revision: w.rev, Bundle: clone(w.own)}
	for _, e := range w.entries {
		snap.Entries = append(snap.Entries, e)
	}
	for _, a := range w.agents {
		snap.Agents = append(snap.Agents, a)
	}
	for _, b := range w.others {
		snap.Federated = append(snap.Federated, clone(b))
	}
	w.replace(snap)
}

func clone(b *types.Bundle) *types.Bundle {
	return &types.Bundle{TrustDomain: b.TrustDomain, SequenceNumber: b.SequenceNumber}
}

func (w *world) batch(events ...store.Event) {
	w.rev++
	w.apply(store.Batch{Revision: w.rev, Events: events})
}

func (w *world) put(e registration.Entry) store.Event {
	w.serial++
	e.Revision = w.serial // so that no entry is twice the same
	w.entries[e.ID] = e
	return store.Event{Kind: store.KindEntry, ID: e.ID, Entry: e}
}

func (w *world) drop(id string) store.Event {
	delete(w.entries, id)
	return store.Event{Kind: store.KindEntry, ID: id, Deleted: true}
}

func (w *world) join(agent spiffeid.ID, selectors ...string) store.Event {
	a := &storepb.Agent{SpiffeId: agent.String(), Serial: "1"}
	for _, s := range selectors {
		a.Selectors = append(a.Selectors, &types.Selector{Type: "node", Value: s})
	}
	w.agents[agent.String()] = a
	return store.Event{Kind: store.KindAgent, ID: agent.String(), Agent: a}
}

func (w *world) evict(agent spiffeid.ID) store.Event {
	delete(w.agents, agent.String())
	return store.Event{Kind: store.KindAgent, ID: agent.String(), Deleted: true}
}

func (w *world) rotate() store.Event {
	w.own = &types.Bundle{TrustDomain: testDomain.Name(), SequenceNumber: w.own.SequenceNumber + 1}
	return store.Event{Kind: store.KindBundle, Bundle: w.own}
}

func (w *world) federate(name string) store.Event {
	w.serial++
	w.others[name] = &types.Bundle{TrustDomain: name, SequenceNumber: uint64(w.serial)}
	return store.Event{Kind: store.KindFederatedBundle, ID: name, Bundle: w.others[name]}
}

func (w *world) unfederate(name string) store.Event {
	delete(w.others, name)
	return store.Event{Kind: store.KindFederatedBundle, ID: name, Deleted: true}
}

// mirror is what an agent holds that applies what it is told.
type mirror struct {
	entries map[string]registration.Entry
	bundles map[string]uint64
}

func (m mirror) clone() mirror { return mirror{maps.Clone(m.entries), maps.Clone(m.bundles)} }

// apply applies a delta, in which nothing may be that the agent holds already.
func (m *mirror) apply(t testing.TB, d Delta) {
	t.Helper()
	if d.Reset {
		m.entries, m.bundles = map[string]registration.Entry{}, map[string]uint64{}
	}
	for e := range d.Entries() {
		if old, ok := m.entries[e.ID]; ok && old.Revision == e.Revision {
			t.Errorf("told of entry %s again", e.ID)
		}
		m.entries[e.ID] = e
	}
	for _, id := range d.Removed {
		if _, ok := m.entries[id]; !ok {
			t.Errorf("told to remove entry %s, which was never told", id)
		}
		delete(m.entries, id)
	}
	for _, b := range d.Bundles {
		if m.bundles[b.TrustDomain] == b.SequenceNumber {
			t.Errorf("told of the bundle of %s again", b.TrustDomain)
		}
		m.bundles[b.TrustDomain] = b.SequenceNumber
	}
	for _, name := range d.RemovedBundles {
		if m.bundles[name] == 0 {
			t.Errorf("told to remove the bundle of %s, which was never told", name)
		}
		delete(m.bundles, name)
	}
}

// truth is what the agent should hold now.
func (w *world) truth(agent spiffeid.ID, templates bool) mirror {
	m := mirror{map[string]registration.Entry{}, map[string]uint64{testDomain.Name(): w.own.SequenceNumber}}
	for _, e := range w.AuthorizedEntries(agent) {
		if !e.Template.IsZero() && !templates {
			continue
		}
		m.entries[e.ID] = e
		for _, td := range e.FederatesWith {
			if b := w.others[td.Name()]; b != nil {
				m.bundles[td.Name()] = b.SequenceNumber
			}
		}
	}
	return m
}

func (m mirror) want(t testing.TB, what string, truth mirror) {
	t.Helper()
	if diff := cmp.Diff(truth.revisions(), m.revisions()); diff != "" {
		t.Fatalf("%s: entries (-want +got):\n%s", what, diff)
	}
	if diff := cmp.Diff(truth.bundles, m.bundles); diff != "" {
		t.Fatalf("%s: bundles (-want +got):\n%s", what, diff)
	}
}

func (m mirror) revisions() map[string]int64 {
	all := map[string]int64{}
	for id, e := range m.entries {
		all[id] = e.Revision
	}
	return all
}

func (f *Follower) isWoken() bool {
	select {
	case <-f.woken:
		return true
	default:
		return false
	}
}

// watcher is a follower with what it has made its agent hold.
type watcher struct {
	*Follower
	mirror
	begun bool // it holds something
}

func (w *world) watch(agent spiffeid.ID, templates bool, from Position, holding mirror) *watcher {
	return &watcher{w.Follow(agent, templates, from), holding.clone(), false}
}

// saved is what an agent held at a position.
type saved struct {
	agent     spiffeid.ID
	templates bool
	at        Position
	mirror
}

var (
	someAgents  = []spiffeid.ID{at("/spire/agent/x/a"), at("/spire/agent/x/b"), at("/spire/agent/x/c")}
	someDomains = []string{"one.test", "two.test"}
)

// chance makes up events.
type chance struct {
	*world
	*rand.Rand
}

func (c chance) id() spiffeid.ID { return at(fmt.Sprintf("/p/%d", c.IntN(6))) }

func (c chance) parent() spiffeid.ID {
	switch c.IntN(4) {
	case 0:
		return someAgents[c.IntN(len(someAgents))]
	case 1:
		return at("/spire/server")
	default:
		return c.id()
	}
}

func (c chance) selectors() (all []string) {
	for i := range 3 {
		if c.IntN(2) == 0 {
			all = append(all, fmt.Sprint("s", i))
		}
	}
	return all
}

func (c chance) entry() registration.Entry {
	e := registration.Entry{ID: fmt.Sprint("e", c.IntN(24)), SPIFFEID: c.id(), ParentID: c.parent()}
	for _, s := range c.selectors() {
		e.Selectors = append(e.Selectors, registration.Selector{Type: "node", Value: s})
	}
	if c.IntN(6) == 0 {
		e.SPIFFEID = spiffeid.ID{}
		e.Template, _ = registration.ParseTemplate(testDomain, fmt.Sprintf("/t%d/{{docker:label:app}}", c.IntN(3)))
	}
	if c.IntN(4) == 0 {
		e.ExpiresAt = c.now.Add(time.Duration(c.IntN(20)-2) * time.Second)
	}
	for _, td := range someDomains {
		if c.IntN(5) == 0 {
			e.FederatesWith = append(e.FederatesWith, spiffeid.RequireTrustDomainFromString(td))
		}
	}
	return e
}

func (c chance) event() store.Event {
	agent, domain := someAgents[c.IntN(len(someAgents))], someDomains[c.IntN(len(someDomains))]
	switch c.IntN(16) {
	case 0, 1:
		return c.join(agent, c.selectors()...)
	case 2:
		return c.evict(agent)
	case 3:
		return c.rotate()
	case 4:
		return c.federate(domain)
	case 5:
		return c.unfederate(domain)
	case 6, 7, 8, 9:
		for id := range c.entries {
			return c.drop(id)
		}
	}
	return c.put(c.entry())
}

// step changes the world.
func (c chance) step() {
	switch c.IntN(20) {
	case 0:
		for range c.IntN(8) {
			c.event()
		}
		c.relist()
	case 1, 2, 3:
		c.now = c.now.Add(time.Duration(c.IntN(6)) * time.Second)
		c.pass(c.now.Unix())
	case 4:
		c.now = c.now.Add(-time.Duration(c.IntN(6)) * time.Second)
		c.pass(c.now.Unix())
	default:
		events := make([]store.Event, 1+c.IntN(4)*c.IntN(5))
		for i := range events {
			events[i] = c.event()
		}
		c.batch(events...)
	}
}

// Whatever happens, in any order: who applies what a follower tells holds what
// AuthorizedEntries says, whether it asks each time, now and then, or begins at
// any position it ever held; and who was not woken has missed nothing.
func TestFollowersHoldWhatIsAuthorized(t *testing.T) {
	w := newWorld(t)
	for seed := range uint64(24) {
		w.begin(w.store)
		c := chance{w, rand.New(rand.NewPCG(seed, 1))}
		var watchers []*watcher
		for i, agent := range slices.Concat(someAgents, someAgents) {
			watchers = append(watchers, w.watch(agent, i < len(someAgents), Position{}, mirror{}))
		}
		var past []saved
		for step := range 300 {
			c.step()
			for i, f := range watchers {
				what := fmt.Sprintf("seed %d, step %d, follower %d", seed, step, i)
				truth := w.truth(f.agent, f.templates)
				if !f.isWoken() {
					f.want(t, what+", not woken", truth)
				} else if i%2 == 1 && c.IntN(3) > 0 {
					f.wake() // it is slow
					continue
				}
				d := f.Next()
				if d.Reset && f.begun {
					t.Fatalf("%s: reset", what)
				}
				f.begun = true
				f.apply(t, d)
				f.want(t, what, truth)
				past = append(past, saved{f.agent, f.templates, d.To, f.mirror.clone()})
			}
			from := past[c.IntN(len(past))]
			f := w.watch(from.agent, from.templates, from.at, from.mirror)
			d := f.Next()
			if d.Reset {
				t.Fatalf("seed %d, step %d: a resumption was refused", seed, step)
			}
			f.apply(t, d)
			f.want(t, fmt.Sprintf("seed %d, step %d, resumed from %v", seed, step, from.at), w.truth(f.agent, f.templates))
			if c.IntN(10) == 0 {
				watchers[len(watchers)-1].Close()
				f.begun = true
				watchers[len(watchers)-1] = f
			} else {
				f.Close()
			}
		}
		for _, f := range watchers {
			f.Close()
		}
		if fs := &w.followers; fs.count+len(fs.byAgent)+len(fs.bySelector) != 0 {
			t.Fatal("followers that are closed are kept")
		}
	}
}

func child(id string, parent spiffeid.ID) registration.Entry {
	return registration.Entry{ID: id, SPIFFEID: at("/w/" + id), ParentID: parent, Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}}}
}

func nodeAlias(id, path string, selectors ...string) registration.Entry {
	e := registration.Entry{ID: id, SPIFFEID: at(path), ParentID: at("/spire/server")}
	for _, s := range selectors {
		e.Selectors = append(e.Selectors, registration.Selector{Type: "node", Value: s})
	}
	return e
}

// What was found for one entry of a batch must not be believed for the next, when
// what lies between has moved.
func TestStructureChangesWithinABatch(t *testing.T) {
	w := newWorld(t)
	a := someAgents[0]
	w.batch(w.join(a, "s"), w.put(nodeAlias("alias", "/x", "s")), w.put(child("other", a)))
	f := w.watch(a, true, Position{}, mirror{})
	f.apply(t, f.Next())
	for i, events := range []func() []store.Event{
		func() []store.Event {
			return []store.Event{w.put(child("c1", at("/x"))), w.drop("c1"), w.drop("alias"), w.put(child("c2", at("/x")))}
		},
		func() []store.Event { return []store.Event{w.drop("c2")} },
		func() []store.Event {
			return []store.Event{w.put(child("c1", at("/x"))), w.drop("c1"), w.put(nodeAlias("alias", "/x", "s")), w.put(child("c2", at("/x")))}
		},
	} {
		w.batch(events()...)
		f.apply(t, f.Next())
		f.want(t, fmt.Sprint("batch ", i), w.truth(a, true))
	}
}

// wakes counts the followers that were woken.
func wakes(fs []*watcher) (n int) {
	for _, f := range fs {
		if f.isWoken() {
			n++
		}
	}
	return n
}

// A change wakes whom it concerns and nobody else.
func TestWakesWhomItConcerns(t *testing.T) {
	w := newWorld(t)
	var fs []*watcher
	var events []store.Event
	for i := range 20 {
		agent := someAgent(i)
		events = append(events, w.join(agent, fmt.Sprint("zone", i%4), "all"), w.put(child(fmt.Sprint("own", i), agent)))
		fs = append(fs, w.watch(agent, true, Position{}, mirror{}))
	}
	federated := child("federated", at("/zone0"))
	federated.FederatesWith = []spiffeid.TrustDomain{spiffeid.RequireTrustDomainFromString("one.test")}
	w.batch(append(events, w.put(nodeAlias("zone0", "/zone0", "zone0")), w.put(federated), w.put(nodeAlias("every", "/every", "all")))...)
	for _, f := range fs {
		f.apply(t, f.Next())
	}
	wakes(fs)
	expires := child("expires", at("/zone0"))
	expires.ExpiresAt = w.now.Add(time.Second)
	for _, step := range []struct {
		what  string
		event func() store.Event
		want  int
	}{
		{"an entry of an agent's", func() store.Event { return w.put(child("new", someAgent(3))) }, 1},
		{"of nobody's", func() store.Event { return w.put(child("lost", at("/nobody"))) }, 0},
		{"of a zone's", func() store.Event { return w.put(expires) }, 5},
		{"of all", func() store.Event { return w.put(child("e", at("/every"))) }, 20},
		{"an alias that nothing hangs from", func() store.Event { return w.put(nodeAlias("zone1", "/zone1", "zone1")) }, 0},
		{"and what hangs from it", func() store.Event { return w.put(child("z1", at("/zone1"))) }, 5},
		{"an alias that something hangs from", func() store.Event { return w.drop("zone1") }, 5},
		{"another agent", func() store.Event { return w.join(at("/spire/agent/x/new"), "all") }, 0},
		{"an agent's record", func() store.Event { return w.join(someAgent(7), "zone3", "all") }, 1},
		{"an agent's selectors", func() store.Event { return w.join(someAgent(7), "zone0", "all") }, 1},
		{"a federated bundle", func() store.Event { return w.federate("one.test") }, 6},
		{"a bundle that nobody has", func() store.Event { return w.federate("two.test") }, 0},
		{"the own bundle", func() store.Event { return w.rotate() }, 20},
		{"a relationship", func() store.Event { return store.Event{Kind: store.KindRelationship, ID: "one.test", Deleted: true} }, 0},
	} {
		w.batch(step.event())
		if got := wakes(fs); got != step.want {
			t.Errorf("%s woke %d, want %d", step.what, got, step.want)
		}
		for _, f := range fs {
			f.apply(t, f.Next())
			f.want(t, step.what, w.truth(f.agent, true))
		}
	}
	w.now = w.now.Add(time.Second)
	w.pass(w.now.Unix())
	if got := wakes(fs); got != 6 {
		t.Errorf("the end of an entry woke %d, want 6", got)
	}
	w.relist()
	for _, f := range fs {
		if d := f.Next(); !d.Empty() && len(d.Removed) != 1 {
			t.Errorf("reading the same again told %+v", d)
		}
	}
}

func someAgent(i int) spiffeid.ID { return at(fmt.Sprint("/spire/agent/x/", i)) }

// Where the history does not reach, all there is comes again; and a follower that
// lives needs none of it for plain changes.
func TestHistoryIsBounded(t *testing.T) {
	w := newWorld(t)
	w.history.limit = 4 << 10
	a := someAgents[0]
	f := w.watch(a, true, Position{}, mirror{})
	f.apply(t, f.Next())
	start := saved{at: f.told, mirror: f.mirror.clone()}
	for i := range 400 {
		w.batch(w.put(child(fmt.Sprint("e", i), a)))
		w.batch(w.put(child(fmt.Sprint("e", i/2), a)))
	}
	if n := w.history.size; n > w.history.limit || cap(w.history.changes) > 300 {
		t.Errorf("the history has %d bytes, %d changes", n, cap(w.history.changes))
	}
	d := f.Next()
	if d.Reset {
		t.Error("a follower within its bounds was reset")
	}
	f.apply(t, d)
	f.want(t, "after 800 changes", w.truth(a, true))
	late := w.watch(a, true, start.at, start.mirror)
	if d = late.Next(); !d.Reset {
		t.Error("an old position was resumed")
	}
	late.apply(t, d)
	late.want(t, "after a reset", w.truth(a, true))

	// More than a follower remembers: then all is compared.
	w.history.limit = maxHistory
	var events []store.Event
	for i := range maxPending + 1 {
		events = append(events, w.put(child(fmt.Sprint("more", i), a)))
	}
	w.batch(events...)
	if len(f.pending) != 0 || !f.whole {
		t.Error("the follower remembers more than it may")
	}
	if d = f.Next(); d.Reset {
		t.Error("reset")
	}
	f.apply(t, d)
	f.want(t, "after very many changes", w.truth(a, true))

	w.history.turn(w.applied)
	w.history.turn(w.applied)
	if _, ok := w.history.since(w.applied - 1); ok || w.history.size != 0 {
		t.Error("old history is kept")
	}
	if changes, ok := w.history.since(w.applied); !ok || len(changes) != 0 {
		t.Error("the present is not known")
	}
	for _, at := range []Position{{}, {Revision: w.applied + 1, Second: w.asOf}, {Revision: -1}} {
		if d := w.watch(a, true, at, mirror{}).Next(); !d.Reset {
			t.Errorf("%v was resumed", at)
		}
	}
	if d := w.watch(a, true, Position{w.applied, w.asOf}, f.mirror).Next(); !d.Empty() {
		t.Errorf("the present was told again: %+v", d)
	}
}

// An issuer has 500 agents on a stream, of 10,000 entries each that all of them
// have. One changes.
func BenchmarkFollowers(b *testing.B) {
	w := newWorld(b)
	events := []store.Event{w.put(nodeAlias("alias", "/cluster", "all"))}
	for i := range 10_000 {
		events = append(events, w.put(child(fmt.Sprint("e", i), at("/cluster"))))
	}
	for i := range 500 {
		events = append(events, w.join(someAgent(i), "all"), w.put(child(fmt.Sprint("own", i), someAgent(i))))
	}
	w.batch(events...)
	fs := make([]*Follower, 500)
	for i := range fs {
		fs[i] = w.Follow(someAgent(i), true, Position{})
		fs[i].Next()
	}
	tell := func(b *testing.B, want int, e registration.Entry) {
		b.ReportAllocs()
		for b.Loop() {
			w.batch(w.put(e))
			told := 0
			for _, f := range fs {
				if !f.isWoken() {
					continue
				}
				for range f.Next().Entries() {
					told++
				}
			}
			if told != want {
				b.Fatalf("%d were told, want %d", told, want)
			}
		}
	}
	for _, f := range fs {
		f.isWoken()
	}
	b.Run("of-all", func(b *testing.B) { tell(b, 500, child("e7", at("/cluster"))) })
	b.Run("of-one", func(b *testing.B) { tell(b, 1, child("own7", someAgent(7))) })
	b.Run("of-none", func(b *testing.B) { tell(b, 0, child("lost", at("/lost"))) })
	b.Run("alias", func(b *testing.B) {
		for b.Loop() {
			w.batch(w.put(nodeAlias("alias", "/cluster", "all", "x")))
			w.batch(w.put(nodeAlias("alias", "/cluster", "all")))
			for _, f := range fs {
				if f.isWoken() && !f.Next().Empty() {
					b.Fatal("told")
				}
			}
		}
	})
}
