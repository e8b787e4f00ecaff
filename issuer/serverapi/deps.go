package serverapi

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// Deps is what the services work with.
type Deps struct {
	TrustDomain spiffeid.TrustDomain
	// Store is written; Registry is read. A method that has written waits for
	// the registry before it answers.
	Store    *store.Store
	Registry *registry.Registry
	CA       *ca.Authority
	Enroll   *enroll.Enroller
	// AdminIDs are callers with every right of an administrator, of any trust
	// domain whose bundle is known.
	AdminIDs []spiffeid.ID
	// Limits says which calls are slowed down; the zero value is none.
	Limits Limits
	// Audit logs every call, and each item of those that sign in batches.
	// Without it, those that change or sign, and refusals, are logged.
	Audit bool
	// Level is the log's level, for the Logger service to change; nil leaves
	// that service unimplemented. LaunchLevel is what it was at the start.
	Level       *slog.LevelVar
	LaunchLevel slog.Level
	// Refresh fetches the bundle of a federated trust domain at once, and
	// returns when it is stored; nil leaves RefreshBundle unimplemented.
	Refresh func(context.Context, spiffeid.TrustDomain) error
	// PublishJWT publishes the JWT authority of a downstream issuer, upstream
	// too, and returns all there are; nil adds it to the bundle here.
	PublishJWT func(context.Context, *types.JWTKey) ([]*types.JWTKey, error)
	// Backup writes a consistent copy of the records and the private keys; nil
	// leaves the call unimplemented.
	Backup func(context.Context, io.Writer) error
	// Healthy reports why the issuer cannot issue now; nil looks at the
	// authorities and the bundle alone.
	Healthy func(context.Context) error
	// ProxyProtocol are the networks of proxies that say whose connections they
	// forward, by the PROXY protocol; everyone else's word is refused.
	ProxyProtocol []netip.Prefix
	// RequirePQKEM refuses key exchanges without ML-KEM, and TLS before 1.3.
	RequirePQKEM bool
	// Started is when the issuer started; zero is when the Server was made.
	Started time.Time
	// Calls, if not nil, is told of every call when it ends.
	Calls func(method, code string, took time.Duration)
	// Joins, if not nil, is told of every attempt to join: the method of
	// attestation, which a stranger names, and "ok" or the code of the answer.
	Joins func(method, outcome string)
	// RateLimited, if not nil, is told of every call that was refused for coming
	// too often: "attestation", "signing" or "watching".
	RateLimited func(limit string)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Log may be nil.
	Log *slog.Logger
}

// Limits are switches of the rate limits, as in ratelimit {} of SPIRE's
// server.conf.
type Limits struct {
	// Attestation limits AttestAgent.
	Attestation bool
	// Signing limits what an agent has signed.
	Signing bool
}

func (d *Deps) setDefaults() {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Started.IsZero() {
		d.Started = d.Now()
	}
}
