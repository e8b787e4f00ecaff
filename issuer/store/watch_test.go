package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

var errEnough = errors.New("enough")

// watchUntil returns all batches after a revision, up to another.
func watchUntil(t *testing.T, s *store.Store, after, until store.Revision) []store.Batch {
	t.Helper()
	var batches []store.Batch
	err := s.Watch(t.Context(), after, func(b store.Batch) error {
		batches = append(batches, b)
		if b.Revision >= until {
			return errEnough
		}
		return nil
	})
	if err != errEnough {
		t.Fatalf("watch: %v", err)
	}
	return batches
}

func TestWatchTellsEverythingInOrder(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	start := snapshot(t, s).Revision
	made := create(t, s, entry("web"), entry("db"))
	if _, _, err := s.UpdateEntry(t.Context(), made[0].ID, func(e *registration.Entry) error { e.Hint = "x"; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.DeleteEntries(t.Context(), []string{made[1].ID}); err != nil {
		t.Fatal(err)
	}
	newToken(t, s, id("/node").String())
	wantErr(t, join(s, t, 1, "1", noon), nil)
	if _, err := s.DeleteAgent(t.Context(), agentID); err != nil {
		t.Fatal(err)
	}
	end, err := s.UpdateCA(t.Context(), func(c *store.CAState) error {
		c.Bundle.X509Authorities = []*types.X509Certificate{{Asn1: []byte("x")}}
		c.Authorities = []*storepb.X509Authority{{AuthorityId: "x"}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	var seen []string
	last := start
	for _, b := range watchUntil(t, s, start, end) {
		if b.Revision <= last {
			t.Errorf("revision %d after %d", b.Revision, last)
		}
		last = b.Revision
		for _, e := range b.Events {
			what := map[store.Kind]string{store.KindEntry: "entry", store.KindAgent: "agent", store.KindBundle: "bundle", store.KindAuthority: "authority"}[e.Kind]
			if e.Deleted {
				what = "no " + what
			}
			if e.Kind == store.KindEntry && !e.Deleted {
				what += " " + e.Entry.SPIFFEID.Path() + e.Entry.Hint
				if e.Entry.ID != e.ID {
					t.Errorf("event of entry %s has entry %s", e.ID, e.Entry.ID)
				}
			}
			seen = append(seen, what)
		}
	}
	slices.Sort(seen) // within a transaction there is no order
	want := []string{"entry /web", "entry /db", "entry /webx", "no entry", "agent", "entry /node", "no agent", "no entry", "bundle", "authority"}
	slices.Sort(want)
	if !slices.Equal(seen, want) {
		t.Errorf("events: %q\nwant:   %q", seen, want)
	}
}

func TestWatchNeverSplitsATransaction(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	start := snapshot(t, s).Revision
	done := make(chan []store.Batch)
	const n = 50
	go func() {
		var live []store.Batch
		total := 0
		err := s.Watch(t.Context(), start, func(b store.Batch) error {
			live = append(live, b)
			if total += len(b.Events); total >= 2*n {
				return errEnough
			}
			return nil
		})
		if err != errEnough {
			t.Errorf("watch: %v", err)
		}
		done <- live
	}()
	for i := range n {
		create(t, s, entry(fmt.Sprintf("%d-a", i)), entry(fmt.Sprintf("%d-b", i)))
	}
	late := watchUntil(t, s, start, start+n)
	for name, batches := range map[string][]store.Batch{"live": <-done, "late": late} {
		total := 0
		for _, b := range batches {
			total += len(b.Events)
			if len(b.Events)%2 != 0 {
				t.Errorf("%s: a batch of %d events", name, len(b.Events))
			}
		}
		if total != 2*n {
			t.Errorf("%s: %d events, want %d", name, total, 2*n)
		}
	}
}

func TestWatchFromCompactedRevision(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	start := snapshot(t, s).Revision
	create(t, s, entry("a"))
	create(t, s, entry("b"))
	end := snapshot(t, s).Revision
	if err := s.Compact(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	err := s.Watch(t.Context(), start, func(store.Batch) error { return errEnough })
	if !errors.Is(err, store.ErrCompacted) {
		t.Errorf("got %v, want ErrCompacted", err)
	}
	if n := len(snapshot(t, s).Entries); n != 2 {
		t.Errorf("%d entries after the compaction, want 2", n)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Watch(ctx, 0, func(store.Batch) error { return nil }) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
