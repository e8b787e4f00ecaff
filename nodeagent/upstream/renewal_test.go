package upstream

import (
	"crypto/x509"
	"log/slog"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// The times are those of SPIRE's agent.
func TestAvailabilityTarget(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	for name, test := range map[string]struct {
		life, target     time.Duration
		earliest, latest time.Duration // of the renewal, after now
	}{
		"none":                  {10 * day, 0, 4*day + 12*time.Hour - time.Minute, 5*day + 12*time.Hour},
		"leaves it a life":      {4 * day, 3 * day, day - 10*time.Minute, day},
		"comes after half life": {10 * day, day, 4*day + 12*time.Hour - time.Minute, 5*day + 12*time.Hour},
		"leaves it too little":  {day + 12*time.Hour, day, 16 * time.Hour, 20 * time.Hour},
	} {
		cert := &x509.Certificate{NotBefore: now, NotAfter: now.Add(test.life)}
		for range 20 {
			if at := renewalTime(cert, now, test.target).Sub(now.Round(0)); at < test.earliest || at > test.latest {
				t.Errorf("%s: renewed after %s, want %s to %s", name, at, test.earliest, test.latest)
			}
		}
	}
}

func TestHangsFrom(t *testing.T) {
	ca, other := testca.New(t, "example.org"), testca.New(t, "example.org")
	chain := ca.SVID(t, "spiffe://example.org/spire/agent/a", testca.Lifetime(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))).Certificates
	for want, authorities := range map[bool][]*x509.Certificate{true: {other.Cert, ca.Cert}, false: {other.Cert}} {
		if got := hangsFrom(chain, authorities); got != want {
			t.Errorf("hangs from %d authorities: %t", len(authorities), got)
		}
	}
}

// Where the issuer goes on signing with a tainted authority, the agent does not ask
// without end.
func TestTaintedAgainWaits(t *testing.T) {
	ca := testca.New(t, "example.org")
	id, err := openIdentity(t.TempDir(), ca.TrustDomain, identityOptions{spread: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	key, err := id.joinKey(false)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	sign := func() time.Duration {
		cert := ca.Sign(t, "spiffe://example.org/spire/agent/a", key.Public(), testca.Lifetime(now.Add(-10*time.Second), now.Add(time.Hour)))
		if err := id.setSVID([]*x509.Certificate{cert}, false, now); err != nil {
			t.Fatal(err)
		}
		return id.renewal().Sub(now.Round(0))
	}
	if at := sign(); at < 20*time.Minute {
		t.Errorf("renewed after %s", at)
	}
	if err := id.setBundle([]*x509.Certificate{ca.Cert}, []*x509.Certificate{ca.Cert}, now); err != nil {
		t.Fatal(err)
	}
	if at := id.renewal().Sub(now.Round(0)); at > 5*time.Second || len(id.wake) != 1 {
		t.Errorf("renewed after %s", at)
	}
	first, second := sign(), sign()
	if first < 9*time.Second || second < 13*time.Second {
		t.Errorf("renewed after %s, and %s", first, second)
	}
}
