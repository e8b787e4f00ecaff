package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

func TestCreateEntriesAnswersEachOne(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	first := create(t, s, entry("web"))[0]

	like := entry("web")
	like.Selectors = append(like.Selectors, like.Selectors[0]) // the same set
	like.ID = "chosen"
	taken := entry("other")
	taken.ID = first.ID
	both := entry("web")
	both.ID = first.ID
	large := entry("large")
	large.Hint = strings.Repeat("x", store.MaxRecordBytes)
	odd := entry("odd")
	odd.ID = "a/b"
	fresh := entry("db")
	fresh.ID = "db.1"
	fresh.Revision = 7

	results, rev, err := s.CreateEntries(t.Context(), []registration.Entry{like, taken, both, large, odd, fresh})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		id  string
		err error
	}{
		{first.ID, store.ErrExists},
		{"", store.ErrExists},
		{first.ID, store.ErrExists},
		{"", store.ErrTooLarge},
		{"", nil},
		{"db.1", nil},
	} {
		if want.err != nil && !errors.Is(results[i].Err, want.err) || results[i].Entry.ID != want.id {
			t.Errorf("result %d: %q, %v; want %q, %v", i, results[i].Entry.ID, results[i].Err, want.id, want.err)
		}
	}
	if results[4].Err == nil {
		t.Error("an ID with a slash was stored")
	}
	if results[5].Entry.Revision != 0 || results[5].Entry.CreatedAt.IsZero() {
		t.Errorf("new entry has revision %d, creation %v", results[5].Entry.Revision, results[5].Entry.CreatedAt)
	}
	snap := snapshot(t, s)
	if len(snap.Entries) != 2 || snap.Revision < rev {
		t.Errorf("%d entries at revision %d, want 2 at %d or later", len(snap.Entries), snap.Revision, rev)
	}
}

func TestTwinsInOneBatch(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	var batch []registration.Entry
	for range 3000 {
		batch = append(batch, entry("web"))
	}
	sameID := entry("db")
	sameID.ID = "x"
	other := entry("cache")
	other.ID = "x"
	batch = append(batch, sameID, other)
	results, _, err := s.CreateEntries(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results[1:3000] {
		if !errors.Is(r.Err, store.ErrExists) || r.Entry.ID != results[0].Entry.ID {
			t.Fatalf("twin %d: %q, %v", i, r.Entry.ID, r.Err)
		}
	}
	if results[3000].Err != nil || !errors.Is(results[3001].Err, store.ErrExists) || results[3001].Entry.ID != "" {
		t.Errorf("entries of one ID: %v, %v", results[3000].Err, results[3001])
	}
	if n := len(snapshot(t, s).Entries); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
}

// SPIRE on PostgreSQL makes duplicates here.
func TestConcurrentIdenticalCreatesMakeOne(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	const workers = 64
	start := make(chan struct{})
	made := make(chan store.EntryResult, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			<-start
			// In company, so that whole batches collide.
			batch := []registration.Entry{entry(fmt.Sprintf("own-%d", i)), entry("web"), entry(fmt.Sprintf("pair-%d", i/2))}
			results, _, err := s.CreateEntries(t.Context(), batch)
			if err != nil {
				t.Error(err)
				return
			}
			if results[0].Err != nil {
				t.Errorf("own entry: %v", results[0].Err)
			}
			made <- results[1]
		})
	}
	close(start)
	wg.Wait()
	close(made)
	var created int
	var id string
	for r := range made {
		if r.Err == nil {
			created++
		} else if !errors.Is(r.Err, store.ErrExists) {
			t.Error(r.Err)
		}
		if id == "" {
			id = r.Entry.ID
		}
		if r.Entry.ID != id {
			t.Errorf("answers name entries %s and %s", id, r.Entry.ID)
		}
	}
	if created != 1 {
		t.Errorf("%d creates succeeded, want 1", created)
	}
	if n := len(snapshot(t, s).Entries); n != workers+1+workers/2 {
		t.Errorf("%d entries, want %d", n, workers+1+workers/2)
	}
}

func TestUpdateEntry(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	made := create(t, s, entry("web"), entry("db"))
	web := made[0]

	got, rev, err := s.UpdateEntry(t.Context(), web.ID, func(e *registration.Entry) error {
		e.Hint, e.ID, e.CreatedAt = "new", "x", time.Time{}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := web
	want.Hint, want.Revision = "new", 1
	if !cmp.Equal(want, got, ids) {
		t.Error(cmp.Diff(want, got, ids))
	}
	if snap := snapshot(t, s); snap.Revision < rev || !slices.ContainsFunc(snap.Entries, func(e registration.Entry) bool { return cmp.Equal(e, want, ids) }) {
		t.Errorf("the update is not in the snapshot")
	}

	_, _, err = s.UpdateEntry(t.Context(), web.ID, func(e *registration.Entry) error {
		e.SPIFFEID = made[1].SPIFFEID
		return nil
	})
	if !errors.Is(err, store.ErrExists) || !strings.Contains(err.Error(), made[1].ID) {
		t.Errorf("update to another's key: %v", err)
	}
	_, _, err = s.UpdateEntry(t.Context(), "nowhere", func(*registration.Entry) error { return nil })
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("update of none: %v", err)
	}
	refuse := errors.New("no")
	before := snapshot(t, s)
	if _, _, err = s.UpdateEntry(t.Context(), web.ID, func(*registration.Entry) error { return refuse }); err != refuse {
		t.Errorf("refused update: %v", err)
	}
	if after := snapshot(t, s); after.Revision != before.Revision {
		t.Error("a refused update wrote something")
	}
}

func TestUpdateMovesTheKey(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	web := create(t, s, entry("web"))[0]
	if _, _, err := s.UpdateEntry(t.Context(), web.ID, func(e *registration.Entry) error {
		e.SPIFFEID = id("/moved")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	create(t, s, entry("web")) // its old key is free
	results, _, err := s.CreateEntries(t.Context(), []registration.Entry{entry("moved")})
	if err != nil || !errors.Is(results[0].Err, store.ErrExists) || results[0].Entry.ID != web.ID {
		t.Errorf("its new key is not taken: %v, %v", results, err)
	}
}

func TestConcurrentUpdatesAllCount(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	web := create(t, s, entry("web"))[0]
	const workers = 32
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			if _, _, err := s.UpdateEntry(t.Context(), web.ID, func(e *registration.Entry) error {
				e.X509SVIDTTL += time.Second
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := snapshot(t, s).Entries[0]
	if got.X509SVIDTTL != workers*time.Second || got.Revision != workers {
		t.Errorf("TTL %v, revision %d, want %d of both", got.X509SVIDTTL, got.Revision, workers)
	}
}

func TestDeleteEntries(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	made := create(t, s, entry("web"), entry("db"))
	results, rev, err := s.DeleteEntries(t.Context(), []string{made[0].ID, "nowhere", made[0].ID, "", "a/b"})
	if err != nil || rev == 0 {
		t.Fatal(rev, err)
	}
	if results[0].Err != nil || !cmp.Equal(results[0].Entry, made[0], ids) {
		t.Errorf("deleted %v, %v", results[0].Entry, results[0].Err)
	}
	for i, r := range results[1:] {
		if !errors.Is(r.Err, store.ErrNotFound) {
			t.Errorf("result %d: %v, want ErrNotFound", i+1, r.Err)
		}
	}
	create(t, s, entry("web")) // the key is free again
	if n := len(snapshot(t, s).Entries); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
}

func TestDeleteExpiredEntriesLooksAgain(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	now := time.Unix(1_800_000_000, 0)
	old, renewed, never := entry("old"), entry("renewed"), entry("never")
	old.ExpiresAt, renewed.ExpiresAt = now, now.Add(time.Second)
	made := create(t, s, old, renewed, never)
	results, _, err := s.DeleteExpiredEntries(t.Context(), []string{made[0].ID, made[1].ID, made[2].ID}, now)
	if err != nil {
		t.Fatal(err)
	}
	if results[0].Err != nil || !errors.Is(results[1].Err, store.ErrNotFound) || !errors.Is(results[2].Err, store.ErrNotFound) {
		t.Errorf("results: %v", results)
	}
	if n := len(snapshot(t, s).Entries); n != 2 {
		t.Errorf("%d entries left, want 2", n)
	}
}

func TestManyEntriesInFewTransactions(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	const n = 12_000 // more than a page of the snapshot
	entries := make([]registration.Entry, n)
	for i := range entries {
		entries[i] = entry(fmt.Sprintf("w%d", i))
	}
	before := snapshot(t, s).Revision
	start := time.Now()
	made := create(t, s, entries...)
	t.Logf("%.0f entries a second", n/time.Since(start).Seconds())
	snap := snapshot(t, s)
	if len(snap.Entries) != n || snap.Revision-before > n/500 {
		t.Errorf("%d entries in %d transactions", len(snap.Entries), snap.Revision-before)
	}
	all := make([]string, n)
	for i, e := range made {
		all[i] = e.ID
	}
	if _, _, err := s.DeleteEntries(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if n := len(snapshot(t, s).Entries); n != 0 {
		t.Errorf("%d entries left", n)
	}
}
