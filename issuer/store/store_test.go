package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

// testLog writes to the test's log and fails on anything above Info.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func open(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: dir, TrustDomain: td, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func id(path string, args ...any) spiffeid.ID {
	return spiffeid.RequireFromPath(td, fmt.Sprintf(path, args...))
}

// entry is a plain one, told apart by name.
func entry(name string) registration.Entry {
	return registration.Entry{
		SPIFFEID:  id("/%s", name),
		ParentID:  id("/spire/agent/join_token/a"),
		Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}},
	}
}

func create(t testing.TB, s *store.Store, entries ...registration.Entry) []registration.Entry {
	t.Helper()
	results, _, err := s.CreateEntries(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	made := make([]registration.Entry, len(results))
	for i, r := range results {
		if r.Err != nil {
			t.Fatalf("entry %d: %v", i, r.Err)
		}
		made[i] = r.Entry
	}
	return made
}

func snapshot(t testing.TB, s *store.Store) store.Snapshot {
	t.Helper()
	snap, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

var byID = cmpopts.SortSlices(func(a, b registration.Entry) bool { return a.ID < b.ID })
var ids = cmp.AllowUnexported(spiffeid.ID{}, spiffeid.TrustDomain{})

func TestReopenedStoreHoldsEverything(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "issuer", "store")
	s := open(t, dir)
	e := entry("web")
	e.Selectors = append(e.Selectors, registration.Selector{Type: "unix", Value: "path:/usr/bin/x:y"})
	e.X509SVIDTTL, e.JWTSVIDTTL = time.Minute, time.Hour
	e.FederatesWith = []spiffeid.TrustDomain{spiffeid.RequireTrustDomainFromString("other.test")}
	e.Admin, e.Downstream, e.DisableX509SVIDPrefetch = true, true, true
	e.ExpiresAt = time.Unix(2_000_000_000, 0).UTC()
	e.DNSNames = []string{"web.test"}
	e.Hint = "internal"
	want := create(t, s, e, entry("db"))
	if got := snapshot(t, s).Entries; !cmp.Equal(want, got, byID, ids) {
		t.Error(cmp.Diff(want, got, byID, ids))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := snapshot(t, open(t, dir)).Entries; !cmp.Equal(want, got, byID, ids) {
		t.Error(cmp.Diff(want, got, byID, ids))
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o700 {
		t.Errorf("mode of the directory is %o, want 700", got)
	}
}

func TestSecondStoreOnOneDirectoryNamesTheHolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir)
	_, err := store.Open(t.Context(), store.Config{Dir: dir, TrustDomain: td})
	if !errors.Is(err, durable.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("got %v, want one that names pid %d", err, os.Getpid())
	}
	if strings.Contains(fmt.Sprint(err), "\n") {
		t.Errorf("the error has several lines: %q", err)
	}
}

func TestDirectoryOfAnotherTrustDomainIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	other := spiffeid.RequireTrustDomainFromString("other.test")
	_, err := store.Open(t.Context(), store.Config{Dir: dir, TrustDomain: other})
	if err == nil || !strings.Contains(err.Error(), `holds trust domain "lanyard.test", not "other.test"`) {
		t.Errorf("got %v", err)
	}
	open(t, dir)
}

func TestClosedStoreRefuses(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	watched := make(chan error)
	ready := make(chan struct{})
	var once sync.Once
	go func() {
		watched <- s.Watch(context.WithoutCancel(t.Context()), 0, func(store.Batch) error {
			once.Do(func() { close(ready) })
			return nil
		})
	}()
	create(t, s, entry("web"))
	<-ready
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-watched; !errors.Is(err, store.ErrClosed) {
		t.Errorf("watch: got %v, want ErrClosed", err)
	}
	if _, _, err := s.CreateEntries(t.Context(), []registration.Entry{entry("db")}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("create: got %v, want ErrClosed", err)
	}
	select {
	case err := <-s.Done():
		t.Errorf("Done delivers %v after Close", err)
	default:
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if s, err := store.Open(ctx, store.Config{Dir: dir, TrustDomain: td}); err == nil {
		// It was ready first; that is no error.
		s.Close()
	}
	open(t, dir)
}
