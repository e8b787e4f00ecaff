// Package enroll owns who may join the trust domain as an agent: it makes join
// tokens, checks what an agent shows, and has its first SVID signed. It does
// not speak the RPC (issuer/serverapi) and keeps no records (issuer/store).
package enroll

import (
	"errors"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// Config is what an Enroller works with.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	Store       *store.Store
	Registry    *registry.Registry
	CA          *ca.Authority
	// Methods are the configured methods by name; join_token and join_key are
	// always there.
	Methods map[string]Method
	// AgentIDAsSelector gives each agent the selector spiffe_id:ID (SPIRE's
	// experimental.agent_spiffe_id_as_selector).
	AgentIDAsSelector bool
	// Log takes what should not happen; nil discards it.
	Log *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Enroller admits agents. It is safe for concurrent use.
type Enroller struct {
	cfg   Config
	turns *turns
}

// New returns an Enroller.
func New(cfg Config) *Enroller {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Enroller{cfg: cfg, turns: newTurns()}
}

// Errors that callers tell apart; what Enroller returns wraps them, or those of
// ca.ParseCSR.
var (
	// ErrUnknownMethod says that no such method of attestation is configured.
	// (FailedPrecondition).
	ErrUnknownMethod = errors.New(nodeattest.MethodMissing)
	// ErrTokenSpent says that the token does not exist, or that another key
	// has spent it (InvalidArgument).
	ErrTokenSpent = errors.New(nodeattest.TokenSpent)
	// ErrTokenExpired says that the token's life is over (InvalidArgument).
	ErrTokenExpired = errors.New(nodeattest.TokenExpired)
	// ErrBanned says that the agent may not join again (PermissionDenied).
	ErrBanned = errors.New(nodeattest.AgentBanned)
	// ErrBadRequest says that a token cannot be made as asked.
	ErrBadRequest = errors.New("cannot create join token")
	// ErrUsed says that the evidence has admitted an agent before, and is good
	// for one only (PermissionDenied).
	ErrUsed = errors.New(nodeattest.AlreadyUsed)
	// ErrKeyUnknown says that a node's own key came without a token and is
	// bound to no agent: it never was, or the agent was evicted
	// (PermissionDenied).
	ErrKeyUnknown = errors.New(nodeattest.KeyUnknown)
	// ErrTokenPlace says that the token is good elsewhere: its CIDRs leave out
	// the address that the agent comes from (PermissionDenied).
	ErrTokenPlace = errors.New("join token may not be used from this address")
	// ErrTokenNotFound says that there is no token of that ID.
	ErrTokenNotFound = errors.New("no such join token")
	// ErrTokenExists says that the token chosen by the caller is there already.
	ErrTokenExists = errors.New("join token already exists")
)
