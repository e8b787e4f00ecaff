// Package adminapi owns what an agent's admin socket answers: what a process is
// and why it has an identity or none (Explain), SPIRE's debug and logger services
// for the node's operator, and SPIRE's delegated identity service for those who
// are allowed identities on behalf of others. It takes what it says from the
// caches and the attestor; it changes nothing but the log's level.
package adminapi

import (
	"context"
	"crypto/x509"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentadminv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentdebugv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentloggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/delegatedidentityv1"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Deps are what the services answer with.
type Deps struct {
	// TrustDomain is the agent's.
	TrustDomain spiffeid.TrustDomain
	Cache       *svidcache.Cache
	JWTs        *jwtcache.Cache
	Attestor    Attestor
	// Contact tells how the agent stands with its issuer; nil: not known.
	Contact func() upstream.Contact
	// ID is the agent's own, zero until it has joined. May be nil.
	ID func() spiffeid.ID
	// SVID is the agent's own chain, nil until it has joined. May be nil.
	SVID func() []*x509.Certificate
	// Level is that of the agent's log; nil: it can't be changed.
	Level *slog.LevelVar
	// LaunchLevel is what Level is reset to.
	LaunchLevel slog.Level
	// AuthorizedDelegates may have the identities of others. Nobody else may, not
	// even root.
	AuthorizedDelegates []spiffeid.ID
	// Started is when the agent started.
	Started time.Time
	// Stopping ends when streams are to end; nil: never.
	Stopping context.Context
	// Call, if not nil, is told of each call that ended: its full method name and
	// its status code's.
	Call func(method, code string, took time.Duration)
	// Log may be nil.
	Log *slog.Logger
}

// Attestor finds out what processes are.
type Attestor interface {
	// AttestContext returns what the process that made the RPC of ctx is now.
	AttestContext(ctx context.Context) (workloadattest.Result, error)
	// AttestPID returns the same of the process that has the number pid now, in
	// the agent's PID namespace. The error wraps [workloadattest.ErrGone] where
	// there is none.
	AttestPID(ctx context.Context, pid int) (workloadattest.Result, workloadattest.ProcessInfo, error)
}

// ended tells Call of a call; it is deferred where the call begins.
func (d Deps) ended(method string, began time.Time, err *error) {
	if d.Call != nil {
		d.Call(method, status.Code(*err).String(), time.Since(began))
	}
}

// Register registers the services on r. The server's credentials must be those
// of package workloadattest: who the caller is decides what it may call, in each
// method. The agent's own user and root are the operator, who may call all but
// delegated identity; that is for AuthorizedDelegates alone.
func Register(r grpc.ServiceRegistrar, d Deps) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	who := newOperators(d.Log)
	agentadminv1.RegisterAdminServer(r, &adminService{operators: who, deps: d})
	agentdebugv1.RegisterDebugServer(r, &debugService{operators: who, deps: d})
	agentloggerv1.RegisterLoggerServer(r, &loggerService{operators: who, deps: d})
	delegatedidentityv1.RegisterDelegatedIdentityServer(r, &delegatedService{
		delegates: &delegates{attestor: d.Attestor, cache: d.Cache, authorized: d.AuthorizedDelegates, log: d.Log},
		deps:      d,
	})
}
