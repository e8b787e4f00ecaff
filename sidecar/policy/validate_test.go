package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

const someDigest = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" // SHA-256 of nothing

func TestValidate(t *testing.T) {
	rego := Rego{Path: "p.rego", Query: "data.a.allow"}
	web := []string{"spiffe://one.test/web"}
	tests := map[string]struct {
		config Config
		want   []string // one line each; none: valid
	}{
		"all":                       {Config{AllowAll: true}, nil},
		"all but":                   {Config{AllowAll: true, DenyURIs: web}, nil},
		"rules":                     {Config{AllowURIs: web, AllowCNs: []string{"a"}, AllowTrustDomains: []string{"one.test"}, OwnTrustDomain: true, DenyURIs: web}, nil},
		"rules and query":           {Config{AllowURIs: web, Rego: rego}, nil},
		"pins":                      {Config{Pins: []string{"sha256:" + someDigest, "SHA256:" + someDigest}}, nil},
		"pins of a server":          {Config{Direction: Outbound, Pins: []string{"sha256:" + someDigest}}, nil},
		"nobody asked":              {Config{DisableAuthentication: true}, nil},
		"outbound by host name":     {Config{Direction: Outbound, HostName: true}, nil},
		"outbound query":            {Config{Direction: Outbound, Rego: rego}, nil},
		"ghostunnel's patterns":     {Config{Wide: true, AllowURIs: []string{"td/web", "spiffe://TD/web", "spiffe://td//x", "a"}}, nil},
		"a time limit asks nothing": {Config{AllowAll: true, Rego: Rego{Timeout: time.Second}}, nil},

		"nothing":      {Config{}, []string{"allow_uris: is missing, so nobody may connect: give a pattern (such as spiffe://TRUST-DOMAIN/**) or --allow-all"}},
		"deny alone":   {Config{Direction: Inbound, DenyURIs: web}, []string{"allow_uris: is missing, so nobody may connect: give a pattern (such as spiffe://TRUST-DOMAIN/**) or --allow-all"}},
		"outbound":     {Config{Direction: Outbound, DenyURIs: web}, []string{"allow_uris: is missing: an outbound tunnel names whom it expects: give a pattern (such as spiffe://TRUST-DOMAIN/web), or own_trust_domain"}},
		"outbound all": {Config{Direction: Outbound, AllowAll: true}, []string{"allow_all: an outbound tunnel names whom it expects: give --allow-uri PATTERN, or own_trust_domain"}},
		"outbound without authentication": {Config{Direction: Outbound, DisableAuthentication: true},
			[]string{"disable_authentication: an outbound tunnel always authenticates the server: to show no certificate, say so for its identity"}},
		"direction": {Config{Direction: "up", AllowAll: true}, []string{"direction up: unknown: give inbound or outbound"}},

		"all and others": {Config{AllowAll: true, AllowURIs: web, AllowCNs: []string{"a"}, AllowOUs: []string{"a"}, AllowDNSNames: []string{"a"}, AllowIPs: []string{"::1"},
			AllowTrustDomains: []string{"one.test"}, OwnTrustDomain: true, Rego: rego},
			[]string{"allow_all: excludes --allow-cn, --allow-ou, --allow-dns, --allow-ip, own_trust_domain, allow_trust_domains, --allow-uri, --allow-policy: drop one or the other"}},
		"no authentication and all":   {Config{DisableAuthentication: true, AllowAll: true}, []string{"disable_authentication: excludes --allow-all: drop one or the other"}},
		"no authentication and rules": {Config{DisableAuthentication: true, AllowURIs: web, DenyURIs: web}, []string{"disable_authentication: excludes --allow-uri, deny_uris: drop one or the other"}},
		"no authentication and query": {Config{DisableAuthentication: true, Rego: rego}, []string{"disable_authentication: excludes --allow-policy: drop one or the other"}},
		"no authentication and pins":  {Config{DisableAuthentication: true, Pins: []string{"sha256:" + someDigest}}, []string{"disable_authentication: excludes --allow-spki-pin: drop one or the other"}},
		"pins and all":                {Config{AllowAll: true, Pins: []string{"sha256:" + someDigest}}, []string{"pins: excludes --allow-all: drop one or the other"}},
		"pins and rules":              {Config{AllowIPs: []string{"::1"}, DenyURIs: web, Pins: []string{"sha256:" + someDigest}}, []string{"pins: excludes --allow-ip, deny_uris: drop one or the other"}},
		"pins and query":              {Config{Rego: rego, Pins: []string{"sha256:" + someDigest}}, []string{"pins: excludes --allow-policy: drop one or the other"}},
		"no query":                    {Config{Rego: Rego{Path: "p"}}, []string{"query: is missing: --allow-policy p needs one, such as data.lanyard.allow"}},
		"no policy":                   {Config{Rego: Rego{Query: "data.a"}}, []string{"rego: is missing: --allow-query data.a needs the policy's file or bundle"}},
		"time limit":                  {Config{Rego: Rego{Path: "p", Query: "data.a", Timeout: -time.Second}}, []string{"query data.a: its time limit is -1s: it must be more than 0"}},

		"patterns": {Config{AllowURIs: []string{"a*", "spiffe://td/**/b", "spiffe://td/ok"}, DenyURIs: []string{""}}, []string{
			`deny_uris "": empty pattern: give one such as spiffe://TRUST-DOMAIN/**`,
			"allow_uris a*: * must be a whole segment between slashes",
			"allow_uris spiffe://td/**/b: ** must be the last segment"}},
		"patterns that match nothing": {Config{AllowURIs: []string{"td/web", "spiffe://TD/web", "spiffe:/td/web", "SPIFFE://td/web", "spiffe://td//web", "spiffe://td/../web", "spiffe:"}}, []string{
			"allow_uris td/web: matches no URI, as it has no scheme: write spiffe://td/web",
			`allow_uris spiffe://TD/web: matches no SPIFFE ID: "TD": trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores`,
			"allow_uris spiffe:/td/web: matches no SPIFFE ID: write spiffe://TRUST-DOMAIN/PATH",
			"allow_uris SPIFFE://td/web: matches no SPIFFE ID: their scheme is spiffe, in lower case",
			`allow_uris spiffe://td//web: matches no SPIFFE ID: "": path cannot contain empty segments`,
			`allow_uris spiffe://td/../web: matches no SPIFFE ID: "..": path cannot contain dot segments`,
			"allow_uris spiffe:: matches no SPIFFE ID: write spiffe://TRUST-DOMAIN/PATH"}},
		"a deny that matches nothing": {Config{AllowAll: true, Wide: true, DenyURIs: []string{"td/evil"}}, []string{
			"deny_uris td/evil: matches no URI, as it has no scheme: write spiffe://td/evil"}},
		"addresses": {Config{AllowIPs: []string{"localhost", "fe80::1%eth0", "10.0.0.0/8"}}, []string{
			"allow_ips localhost: not an IP address: give one such as 192.0.2.1 or 2001:db8::1",
			"allow_ips fe80::1%eth0: not an IP address: give one such as 192.0.2.1 or 2001:db8::1",
			"allow_ips 10.0.0.0/8: not an IP address: give one such as 192.0.2.1 or 2001:db8::1"}},
		"trust domains": {Config{AllowTrustDomains: []string{"One.test", "spiffe://one.test/web"}}, []string{
			"allow_trust_domains One.test: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
			"allow_trust_domains spiffe://one.test/web: names more than a trust domain: use a pattern for a path"}},
		"pin texts": {Config{Pins: []string{"", someDigest, "sha1:" + someDigest, "sha384:" + someDigest, "sha256:x"}}, []string{
			`pins "": not a pin: give ALGORITHM:BASE64, such as sha256:DIGEST`,
			"pins " + someDigest + ": not a pin: give ALGORITHM:BASE64, such as sha256:DIGEST",
			"pins sha1:" + someDigest + `: unknown algorithm "sha1": give sha256, sha384 or sha512`,
			"pins sha384:" + someDigest + ": 32 bytes in base64, but sha384 gives 48",
			"pins sha256:x: not in base64: illegal base64 data at input byte 0"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(tt.config, Deps{Name: flags, Rego: func(Rego) (Engine, error) { return engineFunc(tunnelIsYes), nil }})
			var got []string
			for _, err := range setting.All(err) {
				if _, ok := err.(*setting.Error); !ok {
					t.Errorf("%T: %v", err, err)
				}
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if n := len(setting.All(tt.config.Validate())); n != len(tt.want) {
				t.Errorf("Validate finds %d errors, want %d", n, len(tt.want))
			}
		})
	}
}

// What the engine's maker finds wrong keeps its key; a binary without one says so.
func TestEngineThatCannotBeMade(t *testing.T) {
	c := Config{Rego: Rego{Path: "p.rego", Query: "("}}
	for want, rego := range map[string]func(Rego) (Engine, error){
		"rego p.rego: this binary was built without OPA": nil,
		"query (: no query": func(r Rego) (Engine, error) { return nil, setting.Errorf("query", r.Query, "no query") },
		"rego p.rego: odd":  func(Rego) (Engine, error) { return nil, errors.New("odd") },
	} {
		p, err := Compile(c, Deps{Rego: rego})
		if p != nil || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, %v, want %s", p, err, want)
		}
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
