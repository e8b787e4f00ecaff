package policy

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/explain as explanations are now")

// Each explanation is a file as people read it.
func TestExplain(t *testing.T) {
	rego := Rego{Path: "p.rego", Query: "data.a.allow"}
	cert := leaf(t, x509.Certificate{Subject: pkix.Name{CommonName: "web", OrganizationalUnit: []string{"shop"}}, URIs: uris(t, web.String())})
	in := Request{Own: db, Peer: web, Tunnel: "db", Direction: Inbound}
	with := in
	with.Certificate = cert
	tests := map[string]struct {
		config Config
		in     Request
	}{
		"matched":          {Config{AllowURIs: []string{"spiffe://one.test/ns/*/sa/web", "spiffe://two.test/**"}, AllowTrustDomains: []string{"two.test"}}, in},
		"nearly":           {Config{AllowURIs: []string{"spiffe://one.test/ns/prod/sa/webs", "spiffe://*/ns/**"}}, Request{Own: db, Peer: foreign, Tunnel: "db", Direction: Inbound}},
		"denied":           {Config{AllowURIs: []string{"spiffe://one.test/**"}, DenyURIs: []string{"spiffe://one.test/admin", "spiffe://*/ns/prod/**"}}, in},
		"denied anyway":    {Config{AllowCNs: []string{"x"}, DenyURIs: []string{"**"}}, with},
		"all":              {Config{AllowAll: true, DenyURIs: []string{"spiffe://two.test/**"}}, in},
		"own":              {Config{OwnTrustDomain: true, Direction: Outbound}, Request{Own: db, Peer: foreign, Tunnel: "out", Direction: Outbound}},
		"certificate":      {Config{AllowCNs: []string{"db"}, AllowOUs: []string{"shop"}, AllowIPs: []string{"::1"}}, with},
		"without one":      {Config{AllowCNs: []string{"web"}, AllowURIs: []string{"spiffe://one.test/x"}}, in},
		"query":            {Config{Rego: rego, AllowURIs: []string{"spiffe://one.test/x"}}, in},
		"query yes":        {Config{Rego: rego}, Request{Peer: web, Tunnel: "yes"}},
		"query not asked":  {Config{Rego: rego, AllowURIs: []string{"spiffe://one.test/**"}}, in},
		"pins":             {Config{Pins: []string{"sha256:" + someDigest}}, in},
		"nobody asked":     {Config{DisableAuthentication: true}, in},
		"host name":        {Config{HostName: true, Direction: Outbound}, Request{Certificate: cert, Tunnel: "out", Direction: Outbound}},
		"files":            {Config{AllowURIs: []string{"spiffe://one.test/x"}}, Request{Certificate: cert}},
		"nothing is known": {Config{AllowAll: true}, Request{Tunnel: "db"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Explain(t.Context(), compiled(t, tt.config), tt.in)
			file := filepath.Join("testdata", "explain", strings.ReplaceAll(name, " ", "-")+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got; if it is meant, -update:\n%s", diff)
			}
		})
	}
}

// The pin of the key at hand is shown, as only it would let the peer in.
func TestExplainPins(t *testing.T) {
	cert := leaf(t, x509.Certificate{})
	own := PinOf(cert.RawSubjectPublicKeyInfo)
	for _, pin := range []string{own, "sha256:" + someDigest} {
		got := Explain(t.Context(), compiled(t, Config{Pins: []string{pin}}), Request{Certificate: cert})
		if !strings.Contains(got, "a pin of the peer's public key is "+own+"\n") || strings.Contains(got, "allowed by --allow-spki-pin "+own) != (pin == own) {
			t.Error(got)
		}
	}
}

// Without a certificate an engine is shown one with the ID, as most policies look there.
func TestExplainShowsAnEngineTheID(t *testing.T) {
	var seen Request
	p, err := Compile(Config{Rego: Rego{Path: "p", Query: "q"}}, Deps{Rego: func(Rego) (Engine, error) {
		return engineFunc(func(_ context.Context, r Request) (bool, error) {
			seen = r
			return false, errors.New("is undefined")
		}), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	Explain(t.Context(), p, Request{Peer: web})
	if seen.Certificate == nil || len(seen.Certificate.URIs) != 1 || seen.Certificate.URIs[0].String() != web.String() {
		t.Errorf("%+v", seen)
	}
}
