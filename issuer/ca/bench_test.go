package ca_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

func loaded(b *testing.B, change func(*ca.Config)) *ca.Authority {
	b.Helper()
	cfg := ca.Config{TrustDomain: td, Keys: ca.NewMemoryKeys(), Journal: &memory{}}
	if change != nil {
		change(&cfg)
	}
	a := ca.New(cfg)
	if err := a.Load(b.Context()); err != nil {
		b.Fatal(err)
	}
	return a
}

// measure reports the CPU time of one do, which a busy machine does not change
// as it does the time that passes.
func measure(b *testing.B, do func() error) {
	b.Helper()
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if err := do(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

func cpuTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

var web = spiffeid.RequireFromString("spiffe://lanyard.test/ns/prod/sa/web")

// BenchmarkX509SVID is the price of one SVID, and of what goes before it.
func BenchmarkX509SVID(b *testing.B) {
	key := newKey(b)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		b.Fatal(err)
	}
	a := loaded(b, nil)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"SPIRE"}}, URIs: []*url.URL{web.URL()}}
	// What SPIRE does at least: make it and read it back.
	b.Run("x509.CreateCertificate", func(b *testing.B) {
		measure(b, func() error {
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err == nil {
				_, err = x509.ParseCertificate(der)
			}
			return err
		})
	})
	b.Run("csr", func(b *testing.B) {
		measure(b, func() error {
			_, err := ca.ParseCSR(csr)
			return err
		})
	})
	b.Run("issue", func(b *testing.B) {
		measure(b, func() error {
			_, err := a.IssueX509SVID(b.Context(), ca.Params{ID: web, PublicKey: key.Public()})
			return err
		})
	})
	b.Run("sign", func(b *testing.B) {
		measure(b, func() error {
			_, err := a.SignX509SVID(b.Context(), ca.Params{ID: web, PublicKey: key.Public()})
			return err
		})
	})
	unique := loaded(b, func(cfg *ca.Config) { cfg.Composers = []ca.Composer{ca.UniqueID()} })
	b.Run("issue/uniqueid", func(b *testing.B) {
		measure(b, func() error {
			_, err := unique.IssueX509SVID(b.Context(), ca.Params{ID: web, PublicKey: key.Public()})
			return err
		})
	})
}

func BenchmarkJWTSVID(b *testing.B) {
	for _, kt := range []ca.KeyType{ca.KeyECP256, ca.KeyRSA2048} {
		a := loaded(b, func(cfg *ca.Config) { cfg.JWTKeyType = kt })
		b.Run(string(kt), func(b *testing.B) {
			measure(b, func() error {
				_, err := a.SignJWTSVID(b.Context(), ca.JWTParams{ID: web, Audience: []string{"db"}})
				return err
			})
		})
	}
}
