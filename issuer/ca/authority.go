package ca

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
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

// Authority is the issuer's signing side: the authority in use, the one that
// will follow, and the issuer's own SVID. [Authority.Load] and then
// [Authority.Run] own all change; signing may be called from any goroutine and
// touches neither disk nor store.
type Authority struct {
	cfg      Config
	serverID spiffeid.ID

	// Of the goroutine in Load or Run alone.
	records []*record
	stale   bool // records may not be what the journal has
	renewAt time.Time

	active atomic.Pointer[record]        // nil before Load
	own    atomic.Pointer[x509svid.SVID] // nil before Load
}

// New returns an Authority that can sign once it is loaded.
func New(cfg Config) *Authority {
	cfg.setDefaults()
	return &Authority{
		cfg:      cfg,
		serverID: spiffeid.RequireFromSegments(cfg.TrustDomain, "spire", "server"),
		stale:    true,
	}
}

// Rotated returns a channel that is closed at the next change of the
// authorities, their taints, or the issuer's own SVID.
func (a *Authority) Rotated() <-chan struct{} { return make(chan struct{}) }

// Load reads the authorities, does what has become due since the issuer last
// ran, makes the first authority if there is none, and signs the issuer's own
// SVID. On return the bundle has the authority that signs.
func (a *Authority) Load(ctx context.Context) error {
	if most := MaxSVIDTTL(a.cfg.TTL); max(a.cfg.X509SVIDTTL, a.cfg.AgentTTL) > most {
		a.cfg.Log.Warn("SVIDs may end early, with the authority that signed them",
			"ca_ttl", a.cfg.TTL, "default_x509_svid_ttl", a.cfg.X509SVIDTTL, "agent_ttl", a.cfg.AgentTTL,
			"longest_always_honoured", most)
	}
	_, err := a.advance(ctx)
	return err
}

// Retry bounds of a rotation that failed, and the longest sleep: the machine
// may have been suspended, or its clock set, meanwhile.
const (
	minRetry = time.Second
	maxSleep = time.Minute
)

// Run keeps the authorities and the issuer's SVID fresh until ctx is done, and
// returns nil then. A rotation that fails is logged and tried again: what is
// held goes on signing until it expires.
func (a *Authority) Run(ctx context.Context) error {
	retry := minRetry
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		next, err := a.advance(ctx)
		sleep := min(max(next.Sub(a.cfg.Now()), minRetry), maxSleep)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			a.cfg.Log.Error("rotation failed, keeping what there is", "error", err, "retry_in", retry)
			sleep, retry = retry, min(2*retry, maxSleep)
		default:
			retry = minRetry
		}
		timer.Reset(sleep)
	}
}

// advance does everything that is due and returns when the next thing is.
func (a *Authority) advance(ctx context.Context) (time.Time, error) {
	if a.stale {
		if err := a.reload(ctx); err != nil {
			return time.Time{}, fmt.Errorf("load authorities: %w", err)
		}
	}
	now := a.cfg.Now()
	next, err := a.rotate(ctx, now)
	if err != nil {
		a.stale = true // the write may have reached the journal all the same
	}
	// The issuer's own SVID has its own schedule: it must not expire because
	// the store cannot be written.
	if !now.Before(a.renewAt) && a.active.Load() != nil {
		err = errors.Join(err, a.renewOwn(ctx, now))
	}
	if !next.IsZero() && next.Before(a.renewAt) {
		return next, err
	}
	return a.renewAt, err
}

// rotate follows the plan until it says wait.
func (a *Authority) rotate(ctx context.Context, now time.Time) (time.Time, error) {
	// Each round is one of create, prepare, activate and prune; more rounds
	// than that would mean that writes have no effect.
	for range 8 {
		todo := plan(now, a.records)
		var err error
		switch todo.action {
		case actWait:
			return todo.at, nil
		case actCreate:
			err = a.create(ctx, now, storepb.X509Authority_ACTIVE)
		case actPrepare:
			err = a.create(ctx, now, storepb.X509Authority_PREPARED)
		case actActivate:
			err = a.activate(ctx, now, todo.record)
		case actPrune:
			err = a.prune(ctx, now)
		}
		if err != nil {
			return time.Time{}, err
		}
	}
	return time.Time{}, errors.New("authorities do not settle: the journal does not keep what is written to it")
}
