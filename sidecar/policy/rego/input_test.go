package rego

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	out := map[string]crypto.Signer{}
	for name, curve := range map[string]elliptic.Curve{"P-224": elliptic.P224(), "P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = key
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	out["RSA"], out["Ed25519"] = rsaKey, edKey
	return out
}

// decode reads JSON with its numbers as written.
func decode(t *testing.T, text []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// shown is the document that a policy gets for r, looked at piece by piece as a policy does.
func shown(t *testing.T, r policy.Request) map[string]any {
	t.Helper()
	document := input(r).(ast.Object)
	out := map[string]any{}
	for _, key := range document.Keys() {
		value := document.Get(key).Value
		if certificate, ok := value.(ast.Object); ok {
			out[name(key)] = pieces(t, certificate)
			continue
		}
		out[name(key)] = plain(t, value)
	}
	return out
}

func pieces(t *testing.T, o ast.Object) map[string]any {
	t.Helper()
	out := map[string]any{}
	for _, key := range o.Keys() {
		out[name(key)] = plain(t, o.Get(key).Value)
	}
	return out
}

func name(key *ast.Term) string { return string(key.Value.(ast.String)) }

func plain(t *testing.T, v ast.Value) any {
	t.Helper()
	out, err := ast.JSON(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The certificate is ghostunnel's, for every kind of key.
func TestCertificateIsGoJSON(t *testing.T) {
	for name, key := range keys(t) {
		t.Run(name, func(t *testing.T) {
			cert := certificate(t, key)
			text, err := json.Marshal(cert)
			if err != nil {
				t.Fatal(err)
			}
			got := shown(t, policy.Request{Certificate: cert})["certificate"].(map[string]any)
			if diff := cmp.Diff(decode(t, text), got); diff != "" {
				t.Error(diff)
			}
			want(t, file(t, ghostunnels), policy.Request{Certificate: cert}, true, "")
		})
	}
}

// ghostunnels is a policy as they are written for ghostunnel: Go's names, the URI in parts, the key by its type.
const ghostunnels = `package test
import input

default allow = false

allow {
	input.certificate.Subject.CommonName == "web"
	input.certificate.Subject.OrganizationalUnit[_] == "shop"
	input.certificate.DNSNames[_] == "web.test"
	input.certificate.IPAddresses[_] == "192.0.2.1"
	uri := input.certificate.URIs[_]
	uri.Scheme == "spiffe"
	uri.Host == "one.test"
	startswith(uri.Path, "/ns/prod/")
	time.parse_rfc3339_ns(input.certificate.NotAfter) > time.now_ns()
	input.certificate.SerialNumber > 1
	known_key
}

known_key { input.certificate.PublicKey.X; input.certificate.PublicKey.Y }
known_key { input.certificate.PublicKey.N; input.certificate.PublicKey.E }
known_key { is_string(input.certificate.PublicKey) }
`

// A key that Go can't parse, or that is of no signature, still goes into JSON.
func TestOddKeys(t *testing.T) {
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]any{"none": nil, "X25519": x25519.PublicKey(), "text": "odd"} {
		cert := certificate(t, ecdsaKey(t))
		cert.PublicKey = key
		if got := shown(t, policy.Request{Certificate: cert})["certificate"].(map[string]any)["DNSNames"]; got.([]any)[0] != "web.test" {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Besides the certificate, a policy sees who, where and over what.
func TestGap10PolicySeesTheConnection(t *testing.T) {
	r := policy.Request{Own: db, Peer: web, Tunnel: "db", Direction: policy.Inbound, ServerName: "db.test",
		ClientAddr: "192.0.2.7:4711", Listen: "127.0.0.1:5433", Target: "127.0.0.1:5432"}
	want := map[string]any{"certificate": nil, "spiffe_id": web.String(), "own_spiffe_id": db.String(), "tunnel": "db", "direction": "inbound",
		"server_name": "db.test", "client_address": "192.0.2.7:4711", "listen": "127.0.0.1:5433", "target": "127.0.0.1:5432"}
	if diff := cmp.Diff(want, shown(t, r)); diff != "" {
		t.Error(diff)
	}
	r.Certificate = certificate(t, ecdsaKey(t))
	e := file(t, `package test
allow if {
	input.spiffe_id == "spiffe://one.test/ns/prod/sa/web"
	input.own_spiffe_id == "spiffe://one.test/ns/prod/sa/db"
	net.cidr_contains("192.0.2.0/24", split(input.client_address, ":")[0])
	[input.tunnel, input.direction, input.server_name] == ["db", "inbound", "db.test"]
	[input.listen, input.target] == ["127.0.0.1:5433", "127.0.0.1:5432"]
	input.certificate.Subject.CommonName == "web"
}
`)
	if ok, err := e.Allow(t.Context(), r); !ok || err != nil {
		t.Error(ok, err)
	}
	r.ClientAddr = "198.51.100.1:1"
	if ok, _ := e.Allow(t.Context(), r); ok {
		t.Error("another address was let in")
	}
	// Nothing is undefined for not being known: a rule on what is not so means what it says.
	for key, value := range shown(t, policy.Request{}) {
		if value != "" && key != "certificate" {
			t.Errorf("%s is %v", key, value)
		}
	}
	if n := len(slices.Collect(maps.Keys(shown(t, policy.Request{})))); n != len(want) {
		t.Errorf("%d keys", n)
	}
}

// The refusal, and so the log and the record, has the query and what came of it.
func TestGap10RefusalHasQueryAndResult(t *testing.T) {
	path := write(t, "policy.rego", "package test\ndefault allow := false\nallow if input.tunnel == \"yes\"\nwhy := {\"code\": 7}\n")
	for query, want := range map[string]string{"data.test.allow": "query data.test.allow is false for " + web.String(),
		"data.test.why": "query data.test.why is map[code:7], not true for " + web.String(), "data.test.x": "query data.test.x is undefined for " + web.String()} {
		p, err := policy.Compile(policy.Config{Rego: policy.Rego{Path: path, Query: query}}, policy.Deps{Rego: func(r policy.Rego) (policy.Engine, error) { return New(r, nil) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := policy.Reload(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(t.Context(), policy.Request{Peer: web}); d.Allowed || d.Reason != want {
			t.Errorf("%+v, want %s", d, want)
		}
		if text := policy.Explain(t.Context(), p, policy.Request{Own: db, Peer: web, Tunnel: "no"}); !strings.Contains(text, "refused: query "+query) {
			t.Error(text)
		}
		if d := p.Decide(t.Context(), policy.Request{Peer: web, Tunnel: "yes"}); d.Allowed != (query == "data.test.allow") {
			t.Errorf("%+v", d)
		}
	}
}

// FuzzCertificate asks about whatever crypto/x509 takes for a certificate: it is refused or let in, and nothing breaks.
func FuzzCertificate(f *testing.F) {
	for _, key := range keys(f) {
		f.Add(certificate(f, key).Raw)
	}
	e := file(f, ghostunnels)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		// A date of an odd time zone does not go into JSON, for one.
		ok, err := e.Allow(t.Context(), policy.Request{Certificate: cert})
		if ok && (err != nil || cert.Subject.CommonName != "web" || !slices.Contains(cert.DNSNames, "web.test")) {
			t.Fatal(cert.Subject, cert.DNSNames, err)
		}
	})
}

func BenchmarkAllow(b *testing.B) {
	cert := certificate(b, ecdsaKey(b))
	for name, text := range map[string]string{"certificate": ghostunnels, "ID": "package test\nallow if startswith(input.spiffe_id, \"spiffe://one.test/ns/\")\n"} {
		e := file(b, text)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := e.Allow(b.Context(), policy.Request{Own: db, Peer: web, Certificate: cert}); !ok {
					b.Fatal(err)
				}
			}
		})
	}
}
