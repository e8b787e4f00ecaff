package entryfile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

const sample = `set = "team-a"

defaults {
  trust_domain   = "example.org"
  parent_id      = "/node"
  x509_svid_ttl  = "1h"
  federates_with = ["other.test"]
}

entry "web" {
  spiffe_id = "/web"
  selectors = ["unix:uid:1000", "unix:gid:1000"]
  dns_names = ["web.example.org"]
  hint      = "web"
}

# Every container, by its label.
entry "containers" {
  spiffe_id                  = "spiffe://example.org/docker/{{docker:label:app}}"
  parent_id                  = "spiffe://example.org/docker-hosts"
  selectors                  = ["docker:label:managed:yes"]
  x509_svid_ttl              = 60
  jwt_svid_ttl               = "90s"
  federates_with             = []
  expires_at                 = "2030-01-31T00:00:00Z"
  disable_x509_svid_prefetch = true
}
`

func TestReadHCL(t *testing.T) {
	got, err := Read("f.hcl", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := &File{Set: "team-a", Entries: []Declared{
		{Name: "web", Line: 10, Entry: &types.Entry{
			SpiffeId: &types.SPIFFEID{TrustDomain: "example.org", Path: "/web"}, ParentId: &types.SPIFFEID{TrustDomain: "example.org", Path: "/node"},
			Selectors:   []*types.Selector{{Type: "unix", Value: "uid:1000"}, {Type: "unix", Value: "gid:1000"}},
			X509SvidTtl: 3600, FederatesWith: []string{"other.test"}, DnsNames: []string{"web.example.org"}, Hint: "web",
		}},
		{Name: "containers", Line: 18, Entry: &types.Entry{
			SpiffeId: &types.SPIFFEID{TrustDomain: "example.org", Path: "/docker/{{docker:label:app}}"}, ParentId: &types.SPIFFEID{TrustDomain: "example.org", Path: "/docker-hosts"},
			Selectors:   []*types.Selector{{Type: "docker", Value: "label:managed:yes"}},
			X509SvidTtl: 60, JwtSvidTtl: 90, ExpiresAt: 1896048000,
			AdditionalAttributes: &types.Entry_AdditionalAttributes{DisableX509SvidPrefetch: true},
		}},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestReadJSONIsSPIREs(t *testing.T) {
	const file = `{"entries": [
  {"entry_id": "e", "spiffe_id": "spiffe://td/a", "parent_id": "spiffe://td/n", "x509_svid_ttl": 60, "jwt_svid_ttl": 30,
  "selectors": [{"type": "unix", "value": "uid:1"}], "federates_with": ["spiffe://other.test"], "dns_names": ["a"],
  "admin": true, "downstream": true, "store_svid": false, "hint": "h", "entryExpiry": 9, "revision_number": 4, "created_at": 5,
  "additional_attributes": {"disable_x509_svid_prefetch": true, "jwt_svid_include_jti": true}},
  {"Spiffe_ID": "spiffe://td/b", "parent_id": "spiffe://td/n", "selectors": [{"type": "unix", "value": "uid:2"}]}]}`
	got, err := Read("f", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	want := &File{Entries: []Declared{
		{Line: 2, Entry: &types.Entry{
			Id: "e", SpiffeId: &types.SPIFFEID{TrustDomain: "td", Path: "/a"}, ParentId: &types.SPIFFEID{TrustDomain: "td", Path: "/n"},
			X509SvidTtl: 60, JwtSvidTtl: 30, Selectors: []*types.Selector{{Type: "unix", Value: "uid:1"}}, FederatesWith: []string{"other.test"},
			DnsNames: []string{"a"}, Admin: true, Downstream: true, Hint: "h", ExpiresAt: 9,
			AdditionalAttributes: &types.Entry_AdditionalAttributes{DisableX509SvidPrefetch: true, JwtSvidIncludeJti: true},
		}},
		{Line: 6, Entry: &types.Entry{
			SpiffeId: &types.SPIFFEID{TrustDomain: "td", Path: "/b"}, ParentId: &types.SPIFFEID{TrustDomain: "td", Path: "/n"},
			Selectors: []*types.Selector{{Type: "unix", Value: "uid:2"}},
		}},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestReadNamesEveryFault(t *testing.T) {
	hcl := func(body string) string { return "entry \"a\" {\n" + body + "\n}\n" }
	const ids = "spiffe_id = \"spiffe://td/a\"\nparent_id = \"spiffe://td/n\"\n"
	for file, want := range map[string]string{
		"entri \"a\" {}\nsett = \"x\"":           "f:1: unknown block \"entri\"; did you mean \"entry\"?\nf:2: unknown key \"sett\"; did you mean \"set\"?",
		"entry {}":                               `f:1: an entry has one name: entry "web" { … }`,
		"entry \"a\" {":                          "f:1: unclosed configuration block: There is no closing brace for this block before the end of the file. This may be caused by incorrect brace nesting elsewhere in this file",
		hcl(""):                                  "f:1: entry \"a\": spiffe_id is missing\nf:1: entry \"a\": parent_id is missing\nf:1: entry \"a\": selectors is missing",
		hcl(ids + "selector = [\"unix:uid:1\"]"): "f:1: entry \"a\": selectors is missing\nf:4: entry \"a\": unknown key \"selector\"; did you mean \"selectors\"?",
		hcl(ids + "selectors = []"):              `f:4: entry "a": selectors: is empty: an entry without selectors would be for every process`,
		hcl(ids + "selectors = \"unix:uid:1\""):  `f:4: entry "a": selectors: want a list, ["…", "…"]`,
		hcl(ids + "selectors = [\"unix\"]"):      `f:4: entry "a": selectors: selector "unix": want type:value, such as unix:uid:1000`,
		hcl(ids + "selectors = [\"a:b\"]\nx509_svid_ttl = \"1 day\""):       `f:5: entry "a": x509_svid_ttl: "1 day": want seconds, 3600, or a duration, "1h"`,
		hcl(ids + "selectors = [\"a:b\"]\nx509_svid_ttl = -1"):              `f:5: entry "a": x509_svid_ttl: is negative: want seconds, 3600, or a duration, "1h"`,
		hcl(ids + "selectors = [\"a:b\"]\nhint = \"${x}\""):                 `f:5: entry "a": hint: ${…} and %{…} are not filled in here; an ID template is written {{docker:label:app}}`,
		hcl(ids + "selectors = [\"a:b\"]\nhint = 1 + 1"):                    `f:5: entry "a": hint: write the value itself: nothing is computed here`,
		hcl(ids + "selectors = [\"a:b\"]\nadmin = \"yes\""):                 `f:5: entry "a": admin: want true or false`,
		hcl(ids + "selectors = [\"a:b\"]\nexpires_at = \"tomorrow\""):       `f:5: entry "a": expires_at: "tomorrow": want a time, "2030-01-31T00:00:00Z", or Unix seconds`,
		hcl("spiffe_id = \"/a\"\nparent_id = \"n\"\nselectors = [\"a:b\"]"): "f:2: entry \"a\": spiffe_id: \"/a\" is a path alone: write spiffe://TRUST-DOMAIN/a, or trust_domain in the defaults block\nf:3: entry \"a\": parent_id: \"n\": scheme is missing or invalid",
		hcl(ids+"selectors = [\"a:b\"]") + hcl(ids+"selectors = [\"a:b\"]"): "f:6: entry \"a\" stands in line 1 already\nf:6: entry \"a\": an entry with the same spiffe_id, parent_id and selectors stands in line 1 already",
		hcl(ids + "selectors = [\"a:b\"]\ndns_names = [\"a b\"]"):           `f:1: entry "a": invalid DNS name "a b": label "a b": only letters, digits, '-' and '_'`,
		"defaults {\nparent = \"/a\"\n}\ndefaults {}":                       "f:2: defaults: unknown key \"parent\"; did you mean \"parent_id\"?\nf:4: defaults stand in line 1 already",
		`{"entries": [{"spifeID": "x"}]}`:                                   "f:1: entry 1: unknown key \"spifeID\"; did you mean \"spiffe_id\"?\nf:1: entry 1: spiffe_id \"\": cannot be empty; parent_id \"\": cannot be empty",
		"{\"entries\": [\n{]}":                                              `f:2: invalid character ']' looking for beginning of object key string`,
		`{"entries": [{}]} {}`:                                              "f:1: invalid character '{' after top-level value",
		`{"entry": []}`:                                                     `f:1: unknown key "entry"; did you mean "entries"?`,
		`{"entries": {}}`:                                                   `f:1: {, where "[" belongs: want {"entries": [{"spiffe_id": …}]}`,
		`{"entries": [{"x509_svid_ttl": "1h"}]}`:                            `f:1: entry 1: x509_svid_ttl: want a int32, got a string`,
		"{\"entries\": [{},\n7]}":                                           "f:1: entry 1: spiffe_id \"\": cannot be empty; parent_id \"\": cannot be empty\nf:2: entry 2: want an object, {…}",
		strings.Repeat("[", 100):                                            "f:1: more than 64 brackets are open here",
	} {
		_, err := Read("f", []byte(file))
		if err == nil {
			t.Errorf("%s: no error", file)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
}

func TestReadJSONPassesOverWhatSPIREDoes(t *testing.T) {
	var warnings []string
	got, err := ReadJSON("f", []byte(`{"comment": ["x"], "entries": [
  {"spiffe_id": "spiffe://td/a", "parent_id": "spiffe://td/n", "owner": "me"}]}`), func(w string) { warnings = append(warnings, w) })
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	want := []string{
		`f:1: unknown key "comment"; did you mean "entries"?`,
		`f:2: entry 1: unknown key "owner"; known are: ` + strings.Join(jsonKeys(), ", "),
	}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Error(diff)
	}
}

func TestReadStopsAtTwentyFaults(t *testing.T) {
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, "entry \"e%d\" {}\n", i)
	}
	_, err := Read("f", []byte(b.String()))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != maxFaults+1 || lines[maxFaults] != "f: and 130 faults more" {
		t.Errorf("%v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"entries": [{"spiffe_id": "spiffe://td/a", "parent_id": "spiffe://td/n", "selectors": [{"type": "unix", "value": "uid:1"}]}]}`))
	f.Add([]byte(`{"entries": [{"x509_svid_ttl": 1e99}]}`))
	f.Add([]byte("entry \"a\" { spiffe_id = <<E\nspiffe://a/b\nE\n}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Read("f", data)
		if (file == nil) == (err == nil) {
			t.Fatalf("%v, %v", file, err)
		}
		if err != nil {
			for msg := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(msg, "f") && len(data) < 100 {
					t.Logf("a fault without its file: %q", msg)
				}
			}
			return
		}
		for _, d := range file.Entries {
			if !strings.HasPrefix(IDString(d.Entry.SpiffeId), "spiffe://") || !strings.HasPrefix(IDString(d.Entry.ParentId), "spiffe://") {
				t.Fatalf("an entry without IDs: %v", d.Entry)
			}
		}
		if _, err := ReadJSON("f", data, nil); err != nil && len(file.Entries) > 0 && strings.HasPrefix(strings.TrimSpace(string(data)), "{") {
			t.Fatalf("read, but not by ReadJSON: %v", err)
		}
	})
}
