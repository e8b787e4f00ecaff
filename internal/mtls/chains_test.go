package mtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func pool(ca *testca.CA) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.Cert)
	return p
}

// counts says how often chains was asked, and how many of these it verified anew and found good.
func counts(t *testing.T, c *Chains, lookups, verified uint64) {
	t.Helper()
	if l, v := c.Stats(); l != lookups || v != verified {
		t.Errorf("%d lookups and %d verified, want %d and %d", l, v, lookups, verified)
	}
}

func TestChainsRememberWhatVerified(t *testing.T) {
	ca := testca.New(t, "one.test")
	svid := ca.SVID(t, "spiffe://one.test/a")
	var chains Chains
	trust := SVIDs{Bundles: x509bundle.NewSet(ca.Bundle()), Chains: &chains}
	for range 3 {
		if id, err := trust.Verify(svid.Certificates, time.Now()); err != nil || id != svid.ID {
			t.Fatal(id, err)
		}
	}
	counts(t, &chains, 3, 1)
	if chains.Forget(); len(chains.young)+len(chains.old) != 0 {
		t.Error("not forgotten")
	}
	if _, err := trust.Verify(svid.Certificates, time.Now()); err != nil {
		t.Error(err)
	}
	counts(t, &chains, 4, 2)
	// Another leaf, and the same leaf with something after it, are other chains.
	other := ca.SVID(t, "spiffe://one.test/b")
	if id, err := trust.Verify(other.Certificates, time.Now()); err != nil || id != other.ID {
		t.Error(id, err)
	}
	if _, err := trust.Verify([]*x509.Certificate{svid.Certificates[0], ca.Cert}, time.Now()); err != nil {
		t.Error(err)
	}
	counts(t, &chains, 6, 4)
	// What is held is the path alone, not what a peer adds to it.
	for _, v := range chains.young {
		if len(v.path) != 2 {
			t.Errorf("%d certificates are held", len(v.path))
		}
	}
	stranger := testca.New(t, "two.test").Cert
	if _, err := trust.Verify([]*x509.Certificate{svid.Certificates[0], stranger, stranger}, time.Now()); err != nil {
		t.Error(err)
	}
	for _, v := range chains.young {
		if slices.Contains(v.path, stranger) {
			t.Error("what a peer added is held")
		}
	}
}

// A chain is good until its first certificate runs out, be that the leaf or an authority.
func TestChainsEndWithTheirFirstCertificate(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct{ leafEnds, authorityEnds time.Duration }{
		"leaf first":      {time.Minute, time.Hour},
		"authority first": {time.Hour, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			ca := testca.New(t, "one.test", testca.Lifetime(now.Add(-time.Hour), now.Add(tt.authorityEnds)))
			svid := ca.SVID(t, "spiffe://one.test/a", testca.Lifetime(now.Add(-time.Minute), now.Add(tt.leafEnds)))
			var chains Chains
			trust := SVIDs{Bundles: x509bundle.NewSet(ca.Bundle()), Chains: &chains}
			verify := func(after time.Duration) error {
				_, err := trust.Verify(svid.Certificates, now.Add(after))
				return err
			}
			if err := errors.Join(verify(0), verify(59*time.Second)); err != nil {
				t.Fatal(err)
			}
			counts(t, &chains, 2, 1)
			for _, after := range []time.Duration{61 * time.Second, -2 * time.Minute, 2 * time.Hour} {
				if verify(after) == nil {
					t.Errorf("good after %v", after)
				}
			}
			if err := verify(0); err != nil {
				t.Errorf("the clock came back: %v", err)
			}
		})
	}
}

// A flood of chains that fail leaves nothing behind, and one of chains that are good is bounded.
func TestChainsAreBounded(t *testing.T) {
	ca, stranger := testca.New(t, "one.test"), testca.New(t, "one.test")
	var chains Chains
	trust := SVIDs{Bundles: x509bundle.NewSet(ca.Bundle()), Chains: &chains}
	bad := stranger.SVID(t, "spiffe://one.test/a")
	for range 3 {
		if _, err := trust.Verify(bad.Certificates, time.Now()); err == nil {
			t.Fatal("a stranger's chain is good")
		}
	}
	if len(chains.young)+len(chains.old) != 0 {
		t.Error("failures are remembered")
	}
	counts(t, &chains, 3, 0)

	good := ca.SVID(t, "spiffe://one.test/a")
	for i := range 3 * chainsPerGeneration {
		if _, err := trust.Verify(good.Certificates, time.Now()); err != nil { // in use all the time
			t.Fatal(err)
		}
		chains.remember(chainKey{byte(i), byte(i >> 8), 1}, &verified{from: time.Now(), until: time.Now()})
		if n := len(chains.young) + len(chains.old); n > 2*chainsPerGeneration {
			t.Fatalf("%d chains are remembered", n)
		}
	}
	if _, v := chains.Stats(); v != 3*chainsPerGeneration+1 {
		t.Errorf("a chain in use was forgotten: %d", v)
	}
}

func TestChainsOfManyAtOnce(t *testing.T) {
	ca := testca.New(t, "one.test")
	var chains Chains
	trust := SVIDs{Bundles: x509bundle.NewSet(ca.Bundle()), Chains: &chains}
	var all sync.WaitGroup
	for i := range 8 {
		svid := ca.SVID(t, fmt.Sprintf("spiffe://one.test/%d", i%2))
		all.Go(func() {
			for range 100 {
				if id, err := trust.Verify(svid.Certificates, time.Now()); err != nil || id != svid.ID {
					t.Error(id, err)
				}
			}
		})
	}
	all.Wait()
}

func TestPool(t *testing.T) {
	ca, stranger := testca.New(t, "one.test"), testca.New(t, "two.test")
	var chains Chains
	server := func(name string) Pool { return Pool{Roots: pool(ca), Name: name, Chains: &chains} }
	client := Pool{Roots: pool(ca), Clients: true, Chains: &chains}
	both, _ := ca.Leaf(t, testca.Host("localhost", "127.0.0.1"))
	only := func(usage x509.ExtKeyUsage) *x509.Certificate {
		c, _ := ca.Leaf(t, testca.Host("localhost"), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{usage} })
		return c
	}
	expired, _ := ca.Leaf(t, testca.Host("localhost"), testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)))
	strange, _ := stranger.Leaf(t, testca.Host("localhost"))
	clientOnly, serverOnly := only(x509.ExtKeyUsageClientAuth), only(x509.ExtKeyUsageServerAuth)
	for range 2 { // the second time from memory, where it was good
		for _, tt := range []struct {
			name  string
			trust Pool
			cert  *x509.Certificate
			ok    bool
		}{
			{"server by name", server("localhost"), both, true},
			{"server by address", server("127.0.0.1"), both, true},
			{"server, no name", server(""), both, false},
			{"server, other name", server("other"), both, false},
			{"server, other address", server("127.0.0.2"), both, false},
			{"client", client, both, true},
			{"client's as server", server("localhost"), clientOnly, false},
			{"client's as client", client, clientOnly, true},
			{"server's as server", server("localhost"), serverOnly, true},
			{"server's as client", client, serverOnly, false},
			{"expired", server("localhost"), expired, false},
			{"stranger", server("localhost"), strange, false},
			{"stranger as client", client, strange, false},
			{"the system's authorities", Pool{Name: "localhost"}, both, false},
		} {
			id, err := tt.trust.Verify([]*x509.Certificate{tt.cert}, time.Now())
			if (err == nil) != tt.ok || !id.IsZero() {
				t.Errorf("%s: %v, %v", tt.name, id, err)
			}
		}
	}
	if _, err := client.Verify(nil, time.Now()); err == nil {
		t.Error("no certificate is good")
	}
}

func TestKeyOnly(t *testing.T) {
	expired, _ := testca.New(t, "one.test").Leaf(t, testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)))
	if _, err := (KeyOnly{}).Verify([]*x509.Certificate{expired}, time.Now()); err != nil {
		t.Error(err)
	}
	if _, err := (KeyOnly{}).Verify(nil, time.Now()); !errors.Is(err, ErrNoPeerCertificate) {
		t.Error(err)
	}
}

// An intermediate that has run out ends what is remembered, too; another path may still be good.
func TestChainsWithIntermediates(t *testing.T) {
	now := time.Now()
	ca := testca.New(t, "one.test")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	intermediate := func(serial int64, notAfter time.Time) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "sub"},
			NotBefore: now.Add(-time.Hour), NotAfter: notAfter, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign},
			ca.Cert, &key.PublicKey, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	short, long := intermediate(2, now.Add(time.Minute)), intermediate(3, now.Add(30*time.Minute))
	signer := &testca.CA{TrustDomain: spiffeid.RequireTrustDomainFromString("one.test"), Cert: short, Key: key}
	leaf := signer.SVID(t, "spiffe://one.test/a").Certificates[0]
	for name, tt := range map[string]struct {
		chain []*x509.Certificate
		lasts time.Duration
	}{
		"short": {[]*x509.Certificate{leaf, short}, time.Minute},
		"both":  {[]*x509.Certificate{leaf, short, long}, 30 * time.Minute},
	} {
		var chains Chains
		trust := SVIDs{Bundles: x509bundle.NewSet(ca.Bundle()), Chains: &chains}
		for _, after := range []time.Duration{0, tt.lasts - time.Second} {
			if _, err := trust.Verify(tt.chain, now.Add(after)); err != nil {
				t.Errorf("%s after %v: %v", name, after, err)
			}
		}
		counts(t, &chains, 2, 1)
		if _, err := trust.Verify(tt.chain, now.Add(tt.lasts+2*time.Second)); err == nil {
			t.Errorf("%s: good after its end", name)
		}
	}
}
