package issuercli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func TestParseEntriesReadsSPIREsFile(t *testing.T) {
	const file = `{"entries": [{
  "entry_id": "e", "spiffe_id": "spiffe://td/a", "parent_id": "spiffe://td/n", "x509_svid_ttl": 60, "jwt_svid_ttl": 30,
  "selectors": [{"type": "unix", "value": "uid:1"}], "federates_with": ["spiffe://other.test"], "dns_names": ["a"],
  "admin": true, "downstream": true, "store_svid": true, "hint": "h", "entryExpiry": 9, "revision_number": 4, "created_at": 5,
  "additional_attributes": {"disable_x509_svid_prefetch": true, "jwt_svid_include_jti": true}}]}`
	got, err := parseEntries("f", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	want := []*types.Entry{{
		Id: "e", SpiffeId: &types.SPIFFEID{TrustDomain: "td", Path: "/a"}, ParentId: &types.SPIFFEID{TrustDomain: "td", Path: "/n"},
		X509SvidTtl: 60, JwtSvidTtl: 30, Selectors: []*types.Selector{{Type: "unix", Value: "uid:1"}}, FederatesWith: []string{"other.test"},
		DnsNames: []string{"a"}, Admin: true, Downstream: true, StoreSvid: true, Hint: "h", ExpiresAt: 9,
		AdditionalAttributes: &types.Entry_AdditionalAttributes{DisableX509SvidPrefetch: true, JwtSvidIncludeJti: true},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestParseEntriesNamesEveryFault(t *testing.T) {
	for file, want := range map[string]string{
		`{"entries": [{"spifeID": "x"}]}`: `f: json: unknown field "spifeID"`,
		"{\"entries\": [\n{]}":            `f:2: invalid character ']' looking for beginning of object key string`,
		`{"entries": []}`:                 `f holds no entries: want {"entries": [{"spiffe_id": …}]}`,
		`{"entries": [{}]} {}`:            `f: more follows after the end of the JSON object`,
		`{"entries": [{"spiffe_id": "a", "parent_id": "b"}, {"spiffe_id": "spiffe://a/b", "parent_id": "spiffe://a/c", "federates_with": ["A B"]}]}`: `f: entry 1: spiffe_id "a": scheme is missing or invalid; parent_id "b": scheme is missing or invalid
f: entry 2: federates_with "A B": trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores`,
	} {
		_, err := parseEntries("f", []byte(file))
		if err == nil {
			t.Errorf("%s: no error", file)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
}

func FuzzParseEntries(f *testing.F) {
	f.Add([]byte(`{"entries": [{"spiffe_id": "spiffe://td/a", "parent_id": "spiffe://td/n", "selectors": [{"type": "unix", "value": "uid:1"}]}]}`))
	f.Add([]byte(`{"ids": ["a"]}`))
	f.Add([]byte(`{"entries": [{"x509_svid_ttl": 1e99}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseEntries("f", data)
		if err == nil && len(entries) == 0 {
			t.Fatal("neither entries nor an error")
		}
		for _, e := range entries {
			if err == nil && (!strings.HasPrefix(idString(e.SpiffeId), "spiffe://") || !strings.HasPrefix(idString(e.ParentId), "spiffe://")) {
				t.Fatalf("an entry without IDs: %v", e)
			}
		}
	})
}
