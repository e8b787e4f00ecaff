package ca

import (
	"context"
	"crypto/x509/pkix"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// Defaults, SPIRE's.
const (
	DefaultTTL         = 24 * time.Hour
	DefaultX509SVIDTTL = time.Hour
	DefaultJWTSVIDTTL  = 5 * time.Minute
)

// Holders tells which agents hold the trust domain's bundle.
type Holders interface {
	// Hold returns the live agents that have not acknowledged the bundle of that
	// sequence number or a later one, and a channel that is closed when that may
	// have changed.
	Hold(sequence uint64) (missing []spiffeid.ID, changed <-chan struct{})
}

// Journal keeps the records of this issuer's authorities, and the trust
// domain's bundle, for [Authority].
type Journal interface {
	// UpdateCA applies change to the state in one transaction. It may call
	// change more than once; with an error of change, or if change makes no
	// difference, nothing is written. When it returns nil, readers of this
	// issuer find the new bundle.
	UpdateCA(ctx context.Context, change func(*store.CAState) error) (store.Revision, error)
}

// Config is what an Authority is made of.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	Keys        Keys
	Journal     Journal
	// Parent certifies the authorities; nil lets each certify itself.
	Parent Parent
	// TTL is the lifetime of each authority; 0 is [DefaultTTL].
	TTL time.Duration
	// X509SVIDTTL is the lifetime of SVIDs signed without one of their own; 0
	// is [DefaultX509SVIDTTL].
	X509SVIDTTL time.Duration
	// AgentTTL is the lifetime of agents' SVIDs; 0 is X509SVIDTTL.
	AgentTTL time.Duration
	// Subject of the authorities' certificates; empty is C=US,O=SPIFFE.
	Subject pkix.Name
	// KeyType is of new X.509 authorities; empty is [KeyECP256].
	KeyType KeyType
	// JWTKeyType is of new JWT authorities; empty is KeyType.
	JWTKeyType KeyType
	// JWTSVIDTTL is the lifetime of JWT-SVIDs signed without one of their own; 0
	// is [DefaultJWTSVIDTTL].
	JWTSVIDTTL time.Duration
	// JWTIssuer is the "iss" claim of JWT-SVIDs; empty leaves it out.
	JWTIssuer string
	// DisableJWT leaves JWT authorities and JWT-SVIDs out.
	DisableJWT bool
	// Composers change what is signed, in this order.
	Composers []Composer
	// Holders tells which agents hold a bundle; nil leaves SPIRE's timeline.
	Holders Holders
	// Restored says that the records come from a backup: Load then prepares new
	// authorities, as others may have signed with these keys since.
	Restored bool
	// Signed hears of each signature for others; nil is nobody. kind is "x509",
	// "jwt" or "downstream".
	Signed func(kind string, took time.Duration, err error)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Log may be nil.
	Log *slog.Logger
}

func (c *Config) setDefaults() {
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.X509SVIDTTL == 0 {
		c.X509SVIDTTL = DefaultX509SVIDTTL
	}
	if c.AgentTTL == 0 {
		c.AgentTTL = c.X509SVIDTTL
	}
	if c.Parent == nil {
		c.Parent = selfSigned{}
	}
	if c.JWTSVIDTTL == 0 {
		c.JWTSVIDTTL = DefaultJWTSVIDTTL
	}
	if c.KeyType == "" {
		c.KeyType = KeyECP256
	}
	if c.JWTKeyType == "" {
		c.JWTKeyType = c.KeyType
	}
	if c.Signed == nil {
		c.Signed = func(string, time.Duration, error) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// MaxSVIDTTL is the longest lifetime of an SVID that is never cut short by the
// end of its authority, which lives caTTL.
func MaxSVIDTTL(caTTL time.Duration) time.Duration {
	return min(caTTL/6, maxActivateLead)
}
