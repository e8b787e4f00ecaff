package registry

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// A registry that fell behind what the store keeps reads all of it again, and
// nothing is left of what was deleted meanwhile.
func TestRelistAfterCompaction(t *testing.T) {
	t.Parallel()
	td := spiffeid.RequireTrustDomainFromString("lanyard.test")
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), TrustDomain: td, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	create := func(name string) store.Revision {
		results, rev, err := st.CreateEntries(t.Context(), []registration.Entry{{
			ID: name, SPIFFEID: spiffeid.RequireFromPath(td, "/"+name), ParentID: spiffeid.RequireFromPath(td, "/node"),
			Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}},
		}})
		if err != nil || results[0].Err != nil {
			t.Fatal(results, err)
		}
		return rev
	}
	create("stays")
	create("goes")
	r := New(st, log)
	snap, err := st.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.replace(snap)
	r.listed = true // as if it had run until here

	if _, _, err := st.DeleteEntries(t.Context(), []string{"goes"}); err != nil {
		t.Fatal(err)
	}
	rev := create("comes")
	if err := st.Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	if err := r.Wait(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	var got []string
	for e := range r.Entries(Filter{}, "") {
		got = append(got, e.ID)
	}
	if !slices.Equal(got, []string{"comes", "stays"}) {
		t.Errorf("entries after the relist: %v", got)
	}
	// And it follows again.
	if err := r.Wait(t.Context(), create("more")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An agent among 100,000 entries, with 100 of its own and 10 aliases in reach.
func BenchmarkAuthorizedEntries(b *testing.B) {
	td := spiffeid.RequireTrustDomainFromString("lanyard.test")
	st, err := store.Open(b.Context(), store.Config{Dir: b.TempDir(), TrustDomain: td})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	r := New(st, nil)
	agents := make([]spiffeid.ID, 1000)
	r.replace(benchSnapshot(td, agents))
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if n := len(r.AuthorizedEntries(agents[i%len(agents)])); n != 100 {
				b.Fatalf("%d entries", n)
			}
		}
	})
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, ok := r.AuthorizedEntry(agents[i%len(agents)], fmt.Sprintf("%d-7", i%len(agents))); !ok {
				b.Fatal("not authorized")
			}
		}
	})
	b.Run("list-after-change", func(b *testing.B) {
		for b.Loop() {
			e, _ := r.Entry("5-5")
			r.apply(store.Batch{Revision: 2, Events: []store.Event{{Kind: store.KindEntry, ID: e.ID, Entry: e}}})
			for range r.Entries(Filter{}, "") {
				break
			}
		}
	})
}

func benchSnapshot(td spiffeid.TrustDomain, agents []spiffeid.ID) store.Snapshot {
	snap := store.Snapshot{Revision: 1}
	for a := range agents {
		agents[a] = spiffeid.RequireFromPathf(td, "/spire/agent/join_token/%d", a)
		for i := range 100 {
			snap.Entries = append(snap.Entries, registration.Entry{
				ID: fmt.Sprintf("%d-%d", a, i), SPIFFEID: spiffeid.RequireFromPathf(td, "/w/%d/%d", a, i), ParentID: agents[a],
				Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}, {Type: "unix", Value: fmt.Sprint("path:/bin/", i)}},
			})
		}
	}
	return snap
}
