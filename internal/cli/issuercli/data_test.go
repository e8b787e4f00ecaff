package issuercli

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func formatOf(name string) *bundleFormat {
	return &bundleFormat{cli.Choice{Value: name, Accepts: []string{"pem", "spiffe"}}}
}

func TestBundlesSurviveEitherFormat(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("other.test")
	pem, err := testca.New(t, "other.test").Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	first, err := formatOf("pem").decode(pem, td)
	if err != nil {
		t.Fatal(err)
	}
	first.RefreshHint, first.SequenceNumber = 60, 7
	doc, err := formatOf("spiffe").encode(first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := formatOf("spiffe").decode(doc, td)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	again, err := formatOf("pem").encode(second)
	if diff := cmp.Diff(string(pem), string(again)); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func relationships(data []byte) ([]*types.FederationRelationship, error) {
	return dataFile{name: "f", data: data}.relationships()
}

func TestParseRelationshipsReadsSPIREsFile(t *testing.T) {
	pem, err := testca.New(t, "other.test").Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(string(pem))
	if err != nil {
		t.Fatal(err)
	}
	got, err := relationships([]byte(`{"federationRelationships": [
  {"trustDomain": "other.test", "bundleEndpointURL": "https://other.test/b", "bundleEndpointProfile": "https_spiffe",
   "endpointSPIFFEID": "spiffe://other.test/e", "trustDomainBundle": ` + string(quoted) + `, "trustDomainBundleFormat": "pem"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := formatOf("pem").decode(pem, spiffeid.RequireTrustDomainFromString("other.test"))
	if err != nil {
		t.Fatal(err)
	}
	want := []*types.FederationRelationship{{
		TrustDomain: "other.test", BundleEndpointUrl: "https://other.test/b", TrustDomainBundle: bundle,
		BundleEndpointProfile: &types.FederationRelationship_HttpsSpiffe{HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: "spiffe://other.test/e"}},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseRelationships(f *testing.F) {
	f.Add([]byte(`{"federationRelationships": [{"trustDomain": "a", "bundleEndpointURL": "https://a/", "bundleEndpointProfile": "https_web"}]}`))
	f.Add([]byte(`{"federationRelationships": [{"trustDomain": "a", "trustDomainBundle": {"keys": []}, "trustDomainBundleFormat": "spiffe"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := relationships(data)
		if err == nil && len(all) == 0 {
			t.Fatal("neither relationships nor an error")
		}
		for _, fr := range all {
			if err == nil && (fr.TrustDomain == "" || fr.BundleEndpointProfile == nil) {
				t.Fatalf("half a relationship: %v", fr)
			}
		}
	})
}

func FuzzDecodeBundle(f *testing.F) {
	f.Add("spiffe", []byte(`{"keys": [], "spiffe_sequence": 1, "spiffe_refresh_hint": 60}`))
	f.Add("pem", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	td := spiffeid.RequireTrustDomainFromString("other.test")
	f.Fuzz(func(t *testing.T, format string, data []byte) {
		if format != "pem" {
			format = "spiffe"
		}
		bundle, err := formatOf(format).decode(data, td)
		if err != nil || len(bundle.X509Authorities)+len(bundle.JwtAuthorities) == 0 {
			return
		}
		doc, err := formatOf(format).encode(bundle)
		if err != nil {
			t.Fatalf("decoded, but not encoded again: %v", err)
		}
		again, err := formatOf(format).decode(doc, td)
		if err != nil || len(again.X509Authorities) != len(bundle.X509Authorities) || len(again.JwtAuthorities) != len(bundle.JwtAuthorities) {
			t.Fatalf("encoded as %s: %v", doc, err)
		}
	})
}

func TestBatchesFitIntoACall(t *testing.T) {
	small, large := &types.Entry{Hint: "x"}, &types.Entry{Hint: string(make([]byte, batchBytes/2))}
	var all []*types.Entry
	for range batchSize + 1 {
		all = append(all, small)
	}
	all = append(all, large, large, large)
	var sizes []int
	for _, batch := range batches(all) {
		n := 0
		for _, e := range batch {
			n += proto.Size(e)
		}
		if n > 4<<20 {
			t.Errorf("a call of %d bytes", n)
		}
		sizes = append(sizes, len(batch))
	}
	if diff := cmp.Diff([]int{batchSize, 2, 1, 1}, sizes); diff != "" {
		t.Error(diff)
	}
	if got := batches([]*types.Entry{}); got != nil {
		t.Errorf("batches of nothing: %v", got)
	}
}
