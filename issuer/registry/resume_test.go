package registry_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// holding is the revision numbers of the entries that an agent holds.
type holding map[string]int64

func (h holding) apply(d registry.Delta) holding {
	h = maps.Clone(h)
	if d.Reset {
		clear(h)
	}
	for e := range d.Entries() {
		h[e.ID] = e.Revision
	}
	for _, id := range d.Removed {
		delete(h, id)
	}
	return h
}

// run runs the registry over its store until the returned function is called.
func run(t *testing.T, st *store.Store) (_ *registry.Registry, stop func()) {
	t.Helper()
	r := registry.New(st, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	return r, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A history is written, then the issuer starts again, later, and an agent comes
// with each position it ever held, in that run and in those before: it is told
// exactly what has changed.
func TestResumeAtEveryRevisionAfterARestart(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0).UTC()
	cfg := store.Config{Dir: t.TempDir(), TrustDomain: td, Now: func() time.Time { return now }}
	chance := rand.New(rand.NewPCG(1, 2))
	type saved struct {
		run store.Run
		at  registry.Position
		holding
	}
	var all []saved
	const runs = 3
	for turn := range runs {
		st, err := store.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		r, stop := run(t, st)
		<-r.Recalled()
		for _, s := range all {
			f := r.Follow(agentA, true, s.at)
			d := f.Next()
			f.Close()
			if !st.Had(s.run, s.at.Revision) || d.Reset {
				t.Fatalf("turn %d: position %v is not known", turn, s.at)
			}
			want := holding{}
			for _, e := range r.AuthorizedEntries(agentA) {
				want[e.ID] = e.Revision
			}
			if diff := cmp.Diff(want, s.holding.apply(d)); diff != "" {
				t.Fatalf("turn %d: from %v (-want +got):\n%s", turn, s.at, diff)
			}
		}
		f := r.Follow(agentA, true, registry.Position{})
		h := holding{}
		for range 60 {
			rev := scribble(t, st, chance, now)
			if err := r.Wait(t.Context(), rev); err != nil {
				t.Fatal(err)
			}
			d := f.Next()
			h = h.apply(d)
			all = append(all, saved{st.Run(), d.To, h})
		}
		f.Close()
		stop()
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(7 * time.Second) // some entries expire meanwhile
	}
}

// scribble changes something of agent A's, perhaps.
func scribble(t *testing.T, st *store.Store, chance *rand.Rand, now time.Time) store.Revision {
	t.Helper()
	name := fmt.Sprint("e", chance.IntN(12))
	e := entry("/"+name, []spiffeid.ID{agentA, id("/x"), id("/e1")}[chance.IntN(3)])
	e.Selectors[0].Value = fmt.Sprint(chance.IntN(1000))
	if chance.IntN(4) == 0 {
		e.ExpiresAt = now.Add(time.Duration(1+chance.IntN(10)) * time.Second)
	}
	var rev store.Revision
	var err error
	switch chance.IntN(8) {
	case 0:
		_, rev, err = st.DeleteEntries(t.Context(), []string{name})
	case 1:
		_, rev, err = st.CreateEntries(t.Context(), []registration.Entry{alias("/x", fmt.Sprint("s", chance.IntN(3)))})
	case 2:
		_, rev, err = st.DeleteEntries(t.Context(), []string{"x"})
	case 3:
		record := &storepb.Agent{SpiffeId: agentA.String(), AttestationType: "join_token", Serial: "1"}
		for i := range chance.IntN(3) {
			record.Selectors = append(record.Selectors, &types.Selector{Type: "node", Value: fmt.Sprint("s", i)})
		}
		if rev, err = st.DeleteAgent(t.Context(), agentA); err != nil || chance.IntN(2) == 0 {
			_, rev, err = st.ImportAgents(t.Context(), []*storepb.Agent{record})
		}
	case 4, 5:
		_, rev, err = st.UpdateEntry(t.Context(), name, func(old *registration.Entry) error {
			old.ParentID, old.ExpiresAt = e.ParentID, e.ExpiresAt
			return nil
		})
		if err != nil { // it is not there, or another is like it
			err = nil
		}
	default:
		_, rev, err = st.CreateEntries(t.Context(), []registration.Entry{e})
	}
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// An entry that expires is told of as gone in that moment, and no sooner.
func TestExpiryIsToldByItself(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	begin := time.Now()
	r.now = begin
	r.store.Close()
	var err error
	r.store, err = store.Open(t.Context(), store.Config{Dir: t.TempDir(), TrustDomain: td})
	if err != nil {
		t.Fatal(err)
	}
	r.Registry = registry.New(r.store, nil)
	r.start()
	f := r.Follow(agentA, true, registry.Position{})
	defer f.Close()
	late := entry("/late", agentA)
	late.ExpiresAt = begin.Add(time.Hour)
	r.create(late)
	h := holding{}
	next := func() registry.Delta {
		t.Helper()
		select {
		case <-f.Woken():
		case <-time.After(time.Minute):
			t.Fatal("was told nothing")
		}
		d := f.Next()
		h = h.apply(d)
		return d
	}
	// A machine that is busy may have it expire before it is told of.
	for life := 2 * time.Second; ; life *= 2 {
		e := entry("/brief", agentA)
		e.ID = fmt.Sprint("brief", life)
		e.ExpiresAt = time.Now().Add(life).Truncate(time.Second)
		r.create(e)
		next()
		if _, told := h[e.ID]; !told {
			if time.Now().After(e.ExpiresAt) {
				continue
			}
			t.Fatalf("holds %v", h)
		}
		for len(next().Removed) == 0 {
		}
		if took := time.Since(e.ExpiresAt); took < 0 || took > 5*time.Second {
			t.Errorf("told %v after it had expired", took)
		}
		break
	}
	if len(h) != 1 {
		t.Errorf("holds %v", h)
	}
}
