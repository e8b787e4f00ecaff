package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

var foreign = spiffeid.RequireTrustDomainFromString("foreign.test")

// filled is a store with a record of each kind, and a copy of it.
func filled(t *testing.T) (store.Snapshot, []byte) {
	t.Helper()
	s := open(t, t.TempDir())
	ctx := t.Context()
	create(t, s, entry("a"), entry("b"))
	newToken(t, s, "")
	_, _, err := s.ImportAgents(ctx, []*storepb.Agent{{SpiffeId: agentID.String(), Serial: "1"}})
	check(t, err)
	_, err = s.SetFederatedBundle(ctx, &types.Bundle{TrustDomain: "foreign.test", SequenceNumber: 3}, store.ModeCreate)
	check(t, err)
	_, err = s.PutRelationship(ctx, &types.FederationRelationship{TrustDomain: "foreign.test", BundleEndpointUrl: "https://foreign.test"}, store.ModeCreate)
	check(t, err)
	_, err = s.UpdateCA(ctx, func(c *store.CAState) error {
		c.Bundle.X509Authorities = []*types.X509Certificate{{Asn1: []byte("root")}}
		c.Authorities = []*storepb.X509Authority{{AuthorityId: "x"}}
		return nil
	})
	check(t, err)
	var buf bytes.Buffer
	size, err := s.Save(ctx, &buf)
	check(t, err)
	if int(size) != buf.Len() {
		t.Errorf("size %d, wrote %d", size, buf.Len())
	}
	return snapshot(t, s), buf.Bytes()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var restoredAt = time.Unix(2_000_000_000, 0)

func restore(t *testing.T, dir string, data []byte) error {
	t.Helper()
	return store.Restore(t.Context(), store.RestoreConfig{
		Dir: dir, TrustDomain: td, Log: testLog(t), Now: func() time.Time { return restoredAt },
	}, bytes.NewReader(data))
}

func TestRestoredStoreHoldsEverythingButTokens(t *testing.T) {
	want, data := filled(t)
	dir := filepath.Join(t.TempDir(), "store")
	check(t, restore(t, dir, data))
	s := open(t, dir)
	got := snapshot(t, s)
	if got.Bundle.SequenceNumber != uint64(restoredAt.Unix()) {
		t.Errorf("sequence number %d", got.Bundle.SequenceNumber)
	}
	got.Bundle.SequenceNumber = want.Bundle.SequenceNumber
	got.Revision = want.Revision
	if diff := cmp.Diff(want, got, protocmp.Transform(), byID, ids); diff != "" {
		t.Errorf("restored (-want +got):\n%s", diff)
	}
	wantErr(t, join(s, t, 1, "1", noon), store.ErrTokenUnknown)
	for _, want := range []bool{true, true} {
		restored, err := s.Restored(t.Context())
		check(t, err)
		if restored != want {
			t.Errorf("restored: %v, want %v", restored, want)
		}
	}
	check(t, s.ClearRestored(t.Context()))
	if restored, err := s.Restored(t.Context()); err != nil || restored {
		t.Errorf("after clearing: %v, %v", restored, err)
	}
	// A copy of the copy is not marked by itself, and higher numbers stay.
	_, err := s.UpdateCA(t.Context(), func(c *store.CAState) error { c.Bundle.X509Authorities = nil; return nil })
	check(t, err)
	var second bytes.Buffer
	_, err = s.Save(t.Context(), &second)
	check(t, err)
	dir = filepath.Join(t.TempDir(), "store")
	check(t, restore(t, dir, second.Bytes()))
	if n := snapshot(t, open(t, dir)).Bundle.SequenceNumber; n != uint64(restoredAt.Unix())+1 {
		t.Errorf("sequence number %d went back", n)
	}
}

func TestRestoreLeavesNothingWhereItFails(t *testing.T) {
	_, data := filled(t)
	parent := t.TempDir()
	dir := filepath.Join(parent, "store")
	wantNone := func(err error, text string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want one with %q", err, text)
		}
		if found, _ := os.ReadDir(parent); len(found) > 0 {
			t.Errorf("left: %v", found)
		}
	}
	wantNone(restore(t, dir, data[:len(data)-1]), "ends too early")
	wantNone(restore(t, dir, nil), "does not begin with")
	wantNone(store.Restore(t.Context(), store.RestoreConfig{Dir: dir, TrustDomain: foreign}, bytes.NewReader(data)), `the copy is of trust domain "lanyard.test", not "foreign.test"`)

	check(t, os.MkdirAll(filepath.Join(dir, "keep"), 0o700))
	if err := restore(t, dir, data); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Error(err)
	}
	check(t, os.Remove(filepath.Join(dir, "keep")))
	check(t, restore(t, dir, data)) // an empty one is taken
}

// A copy is of one revision, whatever is written while it is read.
func TestSaveIsConsistent(t *testing.T) {
	s := open(t, t.TempDir())
	var entries []registration.Entry
	for i := range 3000 { // several pages, and more than the buffer before the output
		e := entry(fmt.Sprintf("w%d", i))
		e.Hint = strings.Repeat("h", 200)
		entries = append(entries, e)
	}
	made := create(t, s, entries...)
	var copied bytes.Buffer
	changed := false
	_, err := s.Save(t.Context(), writerFunc(func(p []byte) (int, error) {
		if !changed {
			changed = true
			var ids []string
			for _, e := range made {
				ids = append(ids, e.ID)
			}
			_, _, err := s.DeleteEntries(t.Context(), ids)
			check(t, err)
			create(t, s, entry("late"))
		}
		return copied.Write(p)
	}))
	check(t, err)
	dir := filepath.Join(t.TempDir(), "store")
	check(t, restore(t, dir, copied.Bytes()))
	if got := snapshot(t, open(t, dir)).Entries; !cmp.Equal(made, got, byID, ids) {
		t.Errorf("%d entries in the copy, want %d", len(got), len(made))
	}
	_, err = s.Save(t.Context(), writerFunc(func(p []byte) (int, error) { return 0, errFull }))
	if !errors.Is(err, errFull) {
		t.Errorf("a writer that fails: %v", err)
	}
}

var errFull = errors.New("full")

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
