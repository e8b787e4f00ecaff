package policy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var (
	web     = spiffeid.RequireFromString("spiffe://one.test/ns/prod/sa/web")
	db      = spiffeid.RequireFromString("spiffe://one.test/ns/prod/sa/db")
	foreign = spiffeid.RequireFromString("spiffe://two.test/ns/prod/sa/web")
)

// leaf makes a certificate with the names of template.
func leaf(t testing.TB, template x509.Certificate) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotAfter = big.NewInt(1), time.Unix(4e9, 0)
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func uris(t testing.TB, texts ...string) []*url.URL {
	t.Helper()
	var out []*url.URL
	for _, s := range texts {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

// flags names keys as a ghostunnel server's command line does.
func flags(key string) string {
	names := map[string]string{"allow_all": "--allow-all", "allow_cns": "--allow-cn", "allow_ous": "--allow-ou", "allow_dns_names": "--allow-dns",
		"allow_ips": "--allow-ip", "allow_uris": "--allow-uri", "pins": "--allow-spki-pin", "rego": "--allow-policy", "query": "--allow-query",
		"disable_authentication": "--disable-authentication"}
	if name, ok := names[key]; ok {
		return name
	}
	return key
}

func compiled(t testing.TB, c Config) Policy {
	t.Helper()
	p, err := Compile(c, Deps{Name: flags, Rego: func(Rego) (Engine, error) { return engineFunc(tunnelIsYes), nil }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// engineFunc is an engine that is asked in these tests; the real one is tested in its own package.
type engineFunc func(context.Context, Request) (bool, error)

func (f engineFunc) Allow(ctx context.Context, r Request) (bool, error) { return f(ctx, r) }
func (f engineFunc) Reload(context.Context) error                       { return errors.New("reloaded") }

func tunnelIsYes(_ context.Context, r Request) (bool, error) {
	if r.Tunnel == "broken" {
		return true, errors.New("is undefined")
	}
	return r.Tunnel == "yes", nil
}
