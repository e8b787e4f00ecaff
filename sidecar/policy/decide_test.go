package policy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRules(t *testing.T) {
	cert := leaf(t, x509.Certificate{
		Subject:     pkix.Name{CommonName: "web", OrganizationalUnit: []string{"shop", "front"}},
		DNSNames:    []string{"web.test", "*.shop.test"},
		IPAddresses: []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")},
		URIs:        uris(t, "https://web.test/x", "spiffe://one.test/a%20b/web"),
	})
	files := Request{Certificate: cert}
	spiffe := Request{Own: db, Peer: web, Certificate: cert}
	tests := map[string]struct {
		config Config
		in     Request
		rule   string // empty: refused
	}{
		"cn":                          {Config{AllowCNs: []string{"other", "web"}}, files, "--allow-cn web"},
		"cn is case-sensitive":        {Config{AllowCNs: []string{"Web"}}, files, ""},
		"cn is no prefix":             {Config{AllowCNs: []string{"we", "web.test"}}, files, ""},
		"cn of a SPIFFE peer":         {Config{AllowCNs: []string{"web"}}, spiffe, "--allow-cn web"},
		"ou":                          {Config{AllowOUs: []string{"front"}}, files, "--allow-ou front"},
		"ou is exact":                 {Config{AllowOUs: []string{"shop,front"}}, files, ""},
		"ou of a SPIFFE peer":         {Config{AllowOUs: []string{"shop"}}, spiffe, "--allow-ou shop"},
		"dns":                         {Config{AllowDNSNames: []string{"web.test"}}, files, "--allow-dns web.test"},
		"dns is case-sensitive":       {Config{AllowDNSNames: []string{"WEB.test"}}, files, ""},
		"dns has no wildcards":        {Config{AllowDNSNames: []string{"*.test", "x.shop.test"}}, files, ""},
		"dns wildcard as a name":      {Config{AllowDNSNames: []string{"*.shop.test"}}, files, "--allow-dns *.shop.test"},
		"ip by value":                 {Config{AllowIPs: []string{"::ffff:192.0.2.1"}}, files, "--allow-ip ::ffff:192.0.2.1"},
		"ip6 by value":                {Config{AllowIPs: []string{"2001:db8:0:0::1"}}, files, "--allow-ip 2001:db8:0:0::1"},
		"ip of a SPIFFE peer":         {Config{AllowIPs: []string{"192.0.2.1"}}, spiffe, "--allow-ip 192.0.2.1"},
		"another ip":                  {Config{AllowIPs: []string{"192.0.2.2"}}, files, ""},
		"any uri of files":            {Config{AllowURIs: []string{"spiffe://one.test/a%20b/*"}, Wide: true}, files, "--allow-uri spiffe://one.test/a%20b/*"},
		"uri as it prints":            {Config{AllowURIs: []string{"spiffe://one.test/a b/*"}, Wide: true}, files, ""},
		"not spiffe":                  {Config{AllowURIs: []string{"https://web.test/**"}}, files, "--allow-uri https://web.test/**"},
		"only the ID of SPIFFE":       {Config{AllowURIs: []string{"https://web.test/**"}}, spiffe, ""},
		"the ID":                      {Config{AllowURIs: []string{"spiffe://one.test/ns/*/sa/web"}}, spiffe, "--allow-uri spiffe://one.test/ns/*/sa/web"},
		"trust domain":                {Config{AllowTrustDomains: []string{"two.test", "spiffe://one.test"}}, spiffe, "allow_trust_domains one.test"},
		"trust domain of files":       {Config{AllowTrustDomains: []string{"one.test"}}, files, ""},
		"own trust domain":            {Config{OwnTrustDomain: true}, spiffe, "own trust domain"},
		"own of another":              {Config{OwnTrustDomain: true}, Request{Own: db, Peer: foreign}, ""},
		"own without own":             {Config{OwnTrustDomain: true}, Request{Peer: web}, ""},
		"own of files":                {Config{OwnTrustDomain: true}, Request{Own: db, Certificate: cert}, ""},
		"wide: every domain":          {Config{AllowURIs: []string{"**"}, Wide: true}, Request{Own: db, Peer: foreign}, "--allow-uri **"},
		"wide: files":                 {Config{AllowURIs: []string{"**"}, Wide: true}, files, "--allow-uri **"},
		"wide: no URI":                {Config{AllowURIs: []string{"**"}, Wide: true}, Request{Certificate: leaf(t, x509.Certificate{})}, ""},
		"own: ** is the own":          {Config{AllowURIs: []string{"**"}}, Request{Own: db, Peer: web}, "--allow-uri **"},
		"own: ** no foreign":          {Config{AllowURIs: []string{"**"}}, Request{Own: db, Peer: foreign}, ""},
		"own: any domain no foreign":  {Config{AllowURIs: []string{"spiffe://*/ns/**"}}, Request{Own: db, Peer: foreign}, ""},
		"own: spiffe://** no foreign": {Config{AllowURIs: []string{"spiffe://**"}}, Request{Own: db, Peer: foreign}, ""},
		"own: cn no foreign":          {Config{AllowCNs: []string{"web"}}, Request{Own: db, Peer: foreign, Certificate: cert}, ""},
		"own: ou no foreign":          {Config{AllowOUs: []string{"shop"}}, Request{Own: db, Peer: foreign, Certificate: cert}, ""},
		"own: dns no foreign":         {Config{AllowDNSNames: []string{"web.test"}}, Request{Own: db, Peer: foreign, Certificate: cert}, ""},
		"own: ip no foreign":          {Config{AllowIPs: []string{"192.0.2.1"}}, Request{Own: db, Peer: foreign, Certificate: cert}, ""},
		"own: cn without own":         {Config{AllowCNs: []string{"web"}}, Request{Peer: web, Certificate: cert}, ""},
		"wide: cn of every domain":    {Config{AllowCNs: []string{"web"}, Wide: true}, Request{Own: db, Peer: foreign, Certificate: cert}, "--allow-cn web"},
		"wide: ip of every domain":    {Config{AllowIPs: []string{"192.0.2.1"}, Wide: true}, Request{Own: db, Peer: foreign, Certificate: cert}, "--allow-ip 192.0.2.1"},
		"own: named domain":           {Config{AllowURIs: []string{"spiffe://two.test/**"}}, Request{Own: db, Peer: foreign}, "--allow-uri spiffe://two.test/**"},
		"own: ** and a domain":        {Config{AllowURIs: []string{"**"}, AllowTrustDomains: []string{"two.test"}}, Request{Own: db, Peer: foreign}, "allow_trust_domains two.test"},
		"own: ** of files":            {Config{AllowURIs: []string{"**"}}, files, ""},
		"own: ** without own":         {Config{AllowURIs: []string{"**"}}, Request{Peer: web}, ""},
		"order":                       {Config{AllowURIs: []string{"**"}, AllowOUs: []string{"shop"}, AllowCNs: []string{"web"}}, spiffe, "--allow-cn web"},
		"all":                         {Config{AllowAll: true}, files, "--allow-all"},
		"all but without":             {Config{AllowAll: true}, Request{}, ""},
		"nobody is asked":             {Config{DisableAuthentication: true}, Request{}, "--disable-authentication"},
		"host name":                   {Config{HostName: true, Direction: Outbound}, files, "host name"},
		"host name and a rule":        {Config{HostName: true, Direction: Outbound, AllowCNs: []string{"db"}}, files, ""},
		"nothing to decide by":        {Config{AllowURIs: []string{"**"}, Wide: true}, Request{Own: db}, ""},
		"query":                       {Config{Rego: Rego{Path: "p.rego", Query: "data.a"}}, Request{Peer: web, Tunnel: "yes"}, "--allow-query data.a"},
		"query says no":               {Config{Rego: Rego{Path: "p.rego", Query: "data.a"}}, Request{Peer: web, Tunnel: "no"}, ""},
		"query fails":                 {Config{Rego: Rego{Path: "p.rego", Query: "data.a"}}, Request{Peer: web, Tunnel: "broken"}, ""},
		"a rule spares the query":     {Config{AllowCNs: []string{"web"}, Rego: Rego{Path: "p.rego", Query: "data.a"}}, spiffe, "--allow-cn web"},
		"query after rules":           {Config{AllowCNs: []string{"x"}, Rego: Rego{Path: "p.rego", Query: "data.a"}}, Request{Peer: web, Tunnel: "yes"}, "--allow-query data.a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := compiled(t, tt.config).Decide(t.Context(), tt.in)
			if got.Allowed != (tt.rule != "") || got.Rule != tt.rule {
				t.Errorf("%+v, want rule %q", got, tt.rule)
			}
			if got.Allowed == (got.Reason != "") || strings.Contains(got.Reason, "\n") {
				t.Errorf("reason %q", got.Reason)
			}
		})
	}
}

func TestDenyBeatsEveryAllow(t *testing.T) {
	cert := leaf(t, x509.Certificate{Subject: pkix.Name{CommonName: "web"}, URIs: uris(t, "https://x.test/", web.String())})
	for name, c := range map[string]Config{
		"all": {AllowAll: true}, "pattern": {AllowURIs: []string{web.String()}}, "cn": {AllowCNs: []string{"web"}},
		"trust domain": {AllowTrustDomains: []string{"one.test"}}, "own": {OwnTrustDomain: true},
		"query":     {Rego: Rego{Path: "p.rego", Query: "data.a"}},
		"host name": {HostName: true, Direction: Outbound},
	} {
		for _, deny := range []string{web.String(), "spiffe://one.test/**", "spiffe://*/ns/prod/**", "**"} {
			c.DenyURIs = []string{"spiffe://x/y", deny}
			for who, r := range map[string]Request{"spiffe": {Own: db, Peer: web, Certificate: cert, Tunnel: "yes"}, "files": {Certificate: cert, Tunnel: "yes"}} {
				d := compiled(t, c).Decide(t.Context(), r)
				if d.Allowed || d.Rule != "deny_uris "+deny || !strings.HasPrefix(d.Reason, "deny_uris "+deny+" matches ") {
					t.Errorf("%s, %s, %s: %+v", name, deny, who, d)
				}
			}
		}
	}
	c := Config{OwnTrustDomain: true, DenyURIs: []string{db.String()}}
	if d := compiled(t, c).Decide(t.Context(), Request{Own: db, Peer: web}); !d.Allowed {
		t.Errorf("%+v", d)
	}
}

func TestReasonsNameThePeerAndTheNearestRule(t *testing.T) {
	cert := leaf(t, x509.Certificate{Subject: pkix.Name{CommonName: "we\"b", OrganizationalUnit: []string{"a", "b", "c", "d", "e"}}})
	tests := map[string]struct {
		config Config
		in     Request
		want   string
	}{
		"one": {Config{AllowURIs: []string{"spiffe://one.test/web"}}, Request{Own: web, Peer: db},
			"--allow-uri spiffe://one.test/web does not match " + db.String() + ": they agree up to spiffe://one.test/"},
		"nearest": {Config{AllowURIs: []string{"spiffe://x/y", "spiffe://one.test/ns/*/sa/web", "spiffe://one.test/ns/prod/x"}}, Request{Own: web, Peer: db},
			"none of 3 --allow-uri matches " + db.String() + "; nearest is --allow-uri spiffe://one.test/ns/*/sa/web: they agree up to spiffe://one.test/ns/prod/sa/"},
		"own": {Config{OwnTrustDomain: true}, Request{Own: web, Peer: foreign},
			foreign.String() + " is not of the own trust domain one.test and no --allow-uri names it"},
		"confined": {Config{AllowURIs: []string{"spiffe://*/**"}}, Request{Own: web, Peer: foreign},
			"--allow-uri spiffe://*/** does not match " + foreign.String() + ": it names no trust domain, so it means the own one, one.test"},
		"mixed": {Config{AllowURIs: []string{"spiffe://x/y"}, AllowTrustDomains: []string{"two.tests"}}, Request{Own: web, Peer: foreign},
			"none of 2 rules matches " + foreign.String() + "; nearest is allow_trust_domains two.tests: the peer is of two.test, not of two.tests"},
		"cn": {Config{AllowCNs: []string{"web"}}, Request{Certificate: cert},
			`--allow-cn web does not match the peer with CN "we\"b": the certificate's CN is "we\"b"`},
		"ou": {Config{AllowOUs: []string{"f"}}, Request{Certificate: cert},
			`--allow-ou f does not match the peer with CN "we\"b": the certificate's OU is "a", "b", "c", "d" and 1 more`},
		"dns": {Config{AllowDNSNames: []string{"f"}}, Request{Certificate: cert},
			`--allow-dns f does not match the peer with CN "we\"b": the certificate has no DNS name`},
		"ip": {Config{AllowIPs: []string{"::1"}}, Request{Certificate: leaf(t, x509.Certificate{IPAddresses: []net.IP{{127, 0, 0, 1}}})},
			`--allow-ip ::1 does not match a peer whose certificate names nobody: the certificate's IP name is "127.0.0.1"`},
		"uri of files": {Config{AllowURIs: []string{"spiffe://x/y"}, Wide: true}, Request{Certificate: cert},
			`--allow-uri spiffe://x/y does not match the peer with CN "we\"b": the certificate has no URI name`},
		"query": {Config{Rego: Rego{Path: "p.rego", Query: "data.a"}}, Request{Peer: db}, "--allow-query data.a is false for " + db.String()},
		"query too": {Config{Rego: Rego{Path: "p.rego", Query: "data.a"}, AllowURIs: []string{"spiffe://x/y"}, Wide: true}, Request{Peer: db, Tunnel: "broken"},
			"--allow-uri spiffe://x/y does not match " + db.String() + ": they have nothing in common; --allow-query data.a is undefined"},
		"nothing shown": {Config{AllowAll: true}, Request{Own: web}, "the peer showed no certificate"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			want := Decision{Reason: tt.want}
			if diff := cmp.Diff(want, compiled(t, tt.config).Decide(t.Context(), tt.in)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A stranger's name neither floods nor breaks a log line.
func TestReasonsStayShort(t *testing.T) {
	cert := leaf(t, x509.Certificate{Subject: pkix.Name{CommonName: strings.Repeat("x\n", 5000)}, URIs: uris(t, "spiffe://one.test/"+strings.Repeat("y", 5000))})
	for _, c := range []Config{{AllowCNs: []string{"x"}}, {AllowURIs: []string{"spiffe://one.test/a"}}, {AllowOUs: []string{"a"}}} {
		if d := compiled(t, c).Decide(t.Context(), Request{Certificate: cert}); len(d.Reason) > 1500 || strings.Contains(d.Reason, "\n") {
			t.Errorf("%d bytes: %.100q", len(d.Reason), d.Reason)
		}
	}
}

func TestNeedsConnectionAndReload(t *testing.T) {
	names := compiled(t, Config{AllowCNs: []string{"web"}})
	engine := compiled(t, Config{Rego: Rego{Path: "p.rego", Query: "data.a"}})
	if NeedsConnection(names) || NeedsConnection(compiled(t, Config{DisableAuthentication: true})) || !NeedsConnection(engine) {
		t.Error("only an engine needs the connection")
	}
	if err := Reload(t.Context(), names); err != nil {
		t.Error(err)
	}
	if err := Reload(t.Context(), engine); err == nil || err.Error() != "reloaded" {
		t.Errorf("the engine was not reloaded: %v", err)
	}
}
