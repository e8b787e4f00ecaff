package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

func id(path string) spiffeid.ID { return spiffeid.RequireFromPath(td, path) }

var (
	issuerID = id("/spire/server")
	agentA   = id("/spire/agent/join_token/a")
	agentB   = id("/spire/agent/join_token/b")
)

// rig is a registry that runs over a real store.
type rig struct {
	*registry.Registry
	t     testing.TB
	store *store.Store
	now   time.Time // set before it is read concurrently
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Unix(1_800_000_000, 0).UTC()}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	var err error
	r.store, err = store.Open(t.Context(), store.Config{
		Dir: t.TempDir(), TrustDomain: td, Log: log, Now: func() time.Time { return r.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
	})
	r.Registry = registry.New(r.store, log)
	return r
}

// start runs the registry until the test ends.
func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	<-r.Ready()
}

func (r *rig) create(entries ...registration.Entry) []string {
	r.t.Helper()
	results, rev, err := r.store.CreateEntries(r.t.Context(), entries)
	if err != nil {
		r.t.Fatal(err)
	}
	ids := make([]string, len(results))
	for i, result := range results {
		if result.Err != nil {
			r.t.Fatal(result.Err)
		}
		ids[i] = result.Entry.ID
	}
	r.wait(rev)
	return ids
}

func (r *rig) wait(rev store.Revision) {
	r.t.Helper()
	if err := r.Wait(r.t.Context(), rev); err != nil {
		r.t.Fatal(err)
	}
}

// join makes an agent with selectors of type node.
func (r *rig) join(agent spiffeid.ID, selectors ...string) {
	r.t.Helper()
	record := &storepb.Agent{SpiffeId: agent.String(), AttestationType: "join_token", Serial: "1"}
	for _, s := range selectors {
		record.Selectors = append(record.Selectors, &types.Selector{Type: "node", Value: s})
	}
	token := agent.Path()
	if err := r.store.CreateToken(r.t.Context(), token, &storepb.JoinToken{ExpiresAt: r.now.Unix() + 60}); err != nil {
		r.t.Fatal(err)
	}
	_, rev, err := r.store.SpendToken(r.t.Context(), store.Join{Token: token, Agent: record, Now: r.now})
	if err != nil {
		r.t.Fatal(err)
	}
	r.wait(rev)
}

// entry has its path as its ID too.
func entry(path string, parent spiffeid.ID) registration.Entry {
	return registration.Entry{
		ID: path[1:], SPIFFEID: id(path), ParentID: parent,
		Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}},
	}
}

// alias gives id(path) to the nodes with the selectors.
func alias(path string, selectors ...string) registration.Entry {
	e := entry(path, issuerID)
	e.Selectors = nil
	for _, s := range selectors {
		e.Selectors = append(e.Selectors, registration.Selector{Type: "node", Value: s})
	}
	return e
}

func names(entries []registration.Entry) []string {
	ids := []string{}
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	return ids
}

func (r *rig) wantAuthorized(agent spiffeid.ID, want ...string) {
	r.t.Helper()
	got := names(r.AuthorizedEntries(agent))
	if !slices.Equal(got, want) {
		r.t.Errorf("%s is authorized for %v, want %v", agent, got, want)
	}
	// The climb from an entry agrees with the walk down to it.
	for e := range r.Entries(registry.Filter{}, "") {
		if _, ok := r.AuthorizedEntry(agent, e.ID); ok != slices.Contains(want, e.ID) {
			r.t.Errorf("AuthorizedEntry(%s, %s) = %v", agent, e.ID, ok)
		}
	}
}

func TestAuthorizedEntries(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	r.join(agentA, "cluster:x", "zone:1")
	r.join(agentB, "cluster:x")
	r.create(
		entry("/a-own", agentA),
		entry("/a-child", id("/a-own")),
		entry("/b-own", agentB),
		alias("/cluster", "cluster:x"),
		alias("/zone", "zone:1", "cluster:x"),
		alias("/elsewhere", "zone:2", "cluster:x"),
		entry("/on-cluster", id("/cluster")),
		entry("/on-zone", id("/zone")),
		entry("/on-elsewhere", id("/elsewhere")),
		entry("/below", id("/on-cluster")),
		// Found on two ways, and on a way back to itself.
		entry("/zone-again", id("/on-zone")),
		entry("/cycle-1", id("/cycle-2")),
		entry("/cycle-2", id("/cycle-1")),
	)
	loop := entry("/cycle-1", id("/on-cluster"))
	loop.ID = "into-the-cycle"
	self := entry("/self", id("/self"))
	r.create(loop, self)

	onCluster := []string{"below", "cycle-1", "cycle-2", "into-the-cycle", "on-cluster"}
	a := slices.Sorted(slices.Values(slices.Concat(onCluster, []string{"a-own", "a-child", "on-zone", "zone-again"})))
	b := slices.Sorted(slices.Values(slices.Concat(onCluster, []string{"b-own"})))
	r.wantAuthorized(agentA, a...)
	r.wantAuthorized(agentB, b...)
	r.wantAuthorized(id("/spire/agent/join_token/nobody"))
	r.wantAuthorized(issuerID)
	r.wantAuthorized(spiffeid.RequireFromString("spiffe://other.test/spire/agent/join_token/a"))
}

func TestAgentBeforeItsRecordHasItsOwnEntries(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	r.create(entry("/own", agentA), alias("/cluster", "x"), entry("/on-cluster", id("/cluster")))
	r.wantAuthorized(agentA, "own")
}

func TestAuthorizationFollowsChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	r.join(agentA, "x")
	ids := r.create(alias("/cluster", "x", "y"), entry("/web", id("/cluster")), entry("/db", agentB))
	r.wantAuthorized(agentA)

	_, rev, err := r.store.UpdateAgent(t.Context(), agentA, func(a *storepb.Agent) error {
		a.Selectors = append(a.Selectors, &types.Selector{Type: "node", Value: "y"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.wait(rev)
	r.wantAuthorized(agentA, "web")

	_, rev, err = r.store.UpdateEntry(t.Context(), "db", func(e *registration.Entry) error {
		e.ParentID = agentA
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.wait(rev)
	r.wantAuthorized(agentA, "db", "web")

	_, rev, err = r.store.DeleteEntries(t.Context(), ids[:1])
	if err != nil {
		t.Fatal(err)
	}
	r.wait(rev)
	r.wantAuthorized(agentA, "db")

	rev, err = r.store.DeleteAgent(t.Context(), agentA)
	if err != nil {
		t.Fatal(err)
	}
	r.wait(rev)
	if _, ok := r.Agent(agentA); ok || len(r.Agents()) != 0 {
		t.Error("the agent is still there")
	}
}

func TestExpiredEntriesAreNotAuthorizedAndGo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	gone := entry("/gone", agentA)
	gone.ExpiresAt = r.now
	lives := entry("/lives", agentA)
	lives.ExpiresAt = r.now.Add(time.Second)
	r.join(agentA, "x")
	node := alias("/cluster", "x")
	node.ExpiresAt = r.now
	r.create(gone, lives, node, entry("/below", id("/gone")), entry("/on-cluster", id("/cluster")))
	r.wantAuthorized(agentA, "lives")
	if got := names(r.EntriesBySPIFFEID(id("/gone"))); len(got) != 0 {
		t.Errorf("an expired entry counts: %v", got)
	}
	if n := r.Count(registry.Filter{}); n != 5 {
		t.Errorf("%d entries are listed before the janitor came, want 5", n)
	}

	changed := r.Changed()
	if err := r.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-changed
	if got := slices.Sorted(r.ids(registry.Filter{})); !slices.Equal(got, []string{"below", "lives", "on-cluster"}) {
		t.Errorf("left: %v", got)
	}
	// What it prunes is exactly the tokens that are of no use to anybody.
	if err := r.store.CreateToken(t.Context(), "t", &storepb.JoinToken{ExpiresAt: r.now.Unix()}); err != nil {
		t.Fatal(err)
	}
	if err := r.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.store.CreateToken(t.Context(), "t", &storepb.JoinToken{ExpiresAt: r.now.Unix() + 1}); err != nil {
		t.Errorf("an expired token was kept: %v", err)
	}
	if err := r.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.store.CreateToken(t.Context(), "t", &storepb.JoinToken{}); !errors.Is(err, store.ErrExists) {
		t.Errorf("a good token was deleted: %v", err)
	}
}

func (r *rig) ids(f registry.Filter) func(func(string) bool) {
	return func(yield func(string) bool) {
		for e := range r.Entries(f, "") {
			if !yield(e.ID) {
				return
			}
		}
	}
}

func TestRestartReadsTheStore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	e := entry("/web", agentA)
	if _, _, err := r.store.CreateEntries(t.Context(), []registration.Entry{e}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.UpdateCA(t.Context(), func(s *store.CAState) error {
		s.Bundle.X509Authorities = []*types.X509Certificate{{Asn1: []byte("x")}}
		s.Authorities = []*storepb.X509Authority{{AuthorityId: "b", IssuedAt: 1}, {AuthorityId: "a", IssuedAt: 2}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.wantAuthorized(agentA, "web")
	if b := r.Bundle(); b.GetSequenceNumber() != 1 || len(b.GetX509Authorities()) != 1 {
		t.Errorf("bundle: %v", b)
	}
	if as := r.Authorities(); len(as) != 2 || as[0].AuthorityId != "b" {
		t.Errorf("authorities: %v", as)
	}
	rev, err := r.store.UpdateCA(t.Context(), func(s *store.CAState) error {
		s.Authorities = s.Authorities[1:]
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.wait(rev)
	if as := r.Authorities(); len(as) != 1 || as[0].AuthorityId != "a" {
		t.Errorf("authorities: %v", as)
	}
}

func TestWaitEndsWithItsContextAndWithRun(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	never := store.Revision(1 << 60)
	runCtx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(runCtx) }()
	<-r.Ready()
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error)
	go func() { waited <- r.Wait(ctx, never) }()
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	go func() { waited <- r.Wait(t.Context(), never) }()
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := <-waited; err == nil {
		t.Error("Wait succeeded after the registry had stopped")
	}
}

func TestRunFailsWithTheStore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	done := make(chan error)
	go func() { done <- r.Run(t.Context()) }()
	<-r.Ready()
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, store.ErrClosed) {
		t.Errorf("Run: %v, want ErrClosed", err)
	}
}

// Readers see a transaction whole or not at all, and writers their own writes.
func TestReadersNeverSeeHalfABatch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	const pairs, writers = 40, 4
	stop := make(chan struct{})
	var reading, writing sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got := r.AuthorizedEntries(agentA)
				if len(got)%2 != 0 {
					t.Errorf("%d entries: half a batch", len(got))
				}
				n := 0
				for range r.Entries(registry.Filter{}, "") {
					n++
				}
				if n%2 != 0 || n < len(got) {
					t.Errorf("%d entries listed after %d were authorized", n, len(got))
				}
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			for i := range pairs {
				ids := r.create(entry(fmt.Sprintf("/%d-%d-a", w, i), agentA), entry(fmt.Sprintf("/%d-%d-b", w, i), agentA))
				for _, id := range ids {
					if _, ok := r.Entry(id); !ok {
						t.Errorf("entry %s cannot be read by its writer", id)
					}
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	if n := r.Count(registry.Filter{}); n != writers*pairs*2 {
		t.Errorf("%d entries, want %d", n, writers*pairs*2)
	}
}
