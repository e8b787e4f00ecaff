package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

func TestFederatedBundleModes(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	set := func(b *types.Bundle, mode store.Mode, want error) {
		t.Helper()
		_, err := s.SetFederatedBundle(t.Context(), b, mode)
		wantErr(t, err, want)
	}
	b := &types.Bundle{TrustDomain: "foreign.test", SequenceNumber: 5}
	set(b, store.ModeUpdate, store.ErrNotFound)
	set(b, store.ModeCreate, nil)
	set(b, store.ModeCreate, store.ErrExists)
	set(&types.Bundle{TrustDomain: "foreign.test", SequenceNumber: 2}, store.ModeSet, nil)
	set(&types.Bundle{TrustDomain: "foreign.test", X509Authorities: []*types.X509Certificate{{Asn1: make([]byte, store.MaxRecordBytes)}}}, store.ModeSet, store.ErrTooLarge)
	for _, name := range []string{"", "lanyard.test", "spiffe://foreign.test", "a/b"} {
		if _, err := s.SetFederatedBundle(t.Context(), &types.Bundle{TrustDomain: name}, store.ModeSet); err == nil {
			t.Errorf("a bundle of %q is stored", name)
		}
	}
	snap := snapshot(t, s)
	if len(snap.Federated) != 1 || snap.Federated[0].SequenceNumber != 2 {
		t.Errorf("stored: %v", snap.Federated)
	}
	_, err := s.DeleteFederatedBundle(t.Context(), foreign, store.DeleteRestrict)
	check(t, err)
	_, err = s.DeleteFederatedBundle(t.Context(), foreign, store.DeleteRestrict)
	wantErr(t, err, store.ErrNotFound)
}

func TestRelationshipBringsItsBundle(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	r := &types.FederationRelationship{
		TrustDomain: "foreign.test", BundleEndpointUrl: "https://foreign.test",
		TrustDomainBundle: &types.Bundle{TrustDomain: "foreign.test", SequenceNumber: 1},
	}
	_, err := s.PutRelationship(t.Context(), r, store.ModeCreate)
	check(t, err)
	snap := snapshot(t, s)
	want := &types.FederationRelationship{TrustDomain: "foreign.test", BundleEndpointUrl: "https://foreign.test"}
	if diff := cmp.Diff([]*types.FederationRelationship{want}, snap.Relationships, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if len(snap.Federated) != 1 {
		t.Error("no bundle came with the relationship")
	}
	r.TrustDomainBundle.TrustDomain = "other.test"
	if _, err := s.PutRelationship(t.Context(), r, store.ModeSet); err == nil {
		t.Error("a relationship brought the bundle of another trust domain")
	}
	_, _, err = s.UpdateRelationship(t.Context(), foreign, func(r *types.FederationRelationship) error {
		r.BundleEndpointUrl = "https://elsewhere.test"
		return nil
	})
	check(t, err)
	if got := snapshot(t, s).Relationships[0].BundleEndpointUrl; got != "https://elsewhere.test" {
		t.Error(got)
	}
	_, err = s.DeleteRelationship(t.Context(), foreign)
	check(t, err)
	_, err = s.DeleteRelationship(t.Context(), foreign)
	wantErr(t, err, store.ErrNotFound)
}

// A bundle that is deleted leaves no entry federating with it, however many
// transactions that takes.
func TestDeletedBundleLeavesNoEntryWithIt(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	_, err := s.SetFederatedBundle(t.Context(), &types.Bundle{TrustDomain: "foreign.test"}, store.ModeSet)
	check(t, err)
	var entries []registration.Entry
	for i := range 2500 {
		e := entry(fmt.Sprintf("f%d", i))
		if i%2 == 0 {
			e.FederatesWith = []spiffeid.TrustDomain{foreign}
		}
		entries = append(entries, e)
	}
	create(t, s, entries...)
	_, err = s.DeleteFederatedBundle(t.Context(), foreign, store.DeleteRestrict)
	wantErr(t, err, store.ErrInUse)
	if err == nil || !strings.Contains(err.Error(), "federated with 1250 registration entries") {
		t.Error(err)
	}
	_, err = s.DeleteFederatedBundle(t.Context(), foreign, store.DeleteDissociate)
	check(t, err)
	snap := snapshot(t, s)
	if len(snap.Entries) != 2500 || len(snap.Federated) != 0 {
		t.Errorf("%d entries and %d bundles are left", len(snap.Entries), len(snap.Federated))
	}
	for _, e := range snap.Entries {
		if len(e.FederatesWith) > 0 {
			t.Fatalf("%s still federates", e.SPIFFEID)
		}
	}
}

func TestImportAgents(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	var agents []*storepb.Agent
	for i := range 2500 {
		agents = append(agents, &storepb.Agent{SpiffeId: id("/spire/agent/x509pop/%d", i).String(), Serial: "7"})
	}
	results, _, err := s.ImportAgents(t.Context(), agents[:10])
	check(t, errors.Join(append(results, err)...))
	agents = append(agents, agents[2000], &storepb.Agent{SpiffeId: "spiffe://other.test/a"}, &storepb.Agent{SpiffeId: "x"})
	results, _, err = s.ImportAgents(t.Context(), agents)
	check(t, err)
	for i, err := range results {
		switch {
		case i < 10 || i == 2500:
			wantErr(t, err, store.ErrExists)
		case i > 2500:
			if err == nil {
				t.Errorf("agent %v was imported", agents[i])
			}
		case err != nil:
			t.Errorf("agent %d: %v", i, err)
		}
	}
	if n := len(snapshot(t, s).Agents); n != 2500 {
		t.Errorf("%d agents", n)
	}
}
