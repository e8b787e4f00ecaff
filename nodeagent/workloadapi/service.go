// Package workloadapi owns the SPIFFE Workload API as the node agent serves it:
// X.509-SVIDs and bundles as streams, JWT-SVIDs one by one, for whoever calls. It
// attests callers through an [Attestor] and takes answers from the caches; it
// decides nothing about identities itself.
package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi/follow"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Attestor finds the selectors of callers.
type Attestor interface {
	// AttestContext returns what the process that made the RPC of ctx is now. An
	// attestor that failed is in the result; an error is that of a process which
	// can't be known at all.
	AttestContext(ctx context.Context) (workloadattest.Result, error)
}

// Config has what a [Service] serves with.
type Config struct {
	Attestor Attestor
	Cache    *svidcache.Cache
	JWTs     *jwtcache.Cache
	// TrustDomain is the agent's own.
	TrustDomain spiffeid.TrustDomain
	// AllowedForeignJWTClaims are told of other trust domains' tokens, besides
	// sub, aud and exp.
	AllowedForeignJWTClaims []string
	// AllowUnauthenticatedVerifiers gives the own trust domain's bundles to
	// callers without identity.
	AllowUnauthenticatedVerifiers bool
	// RateLimits are how many calls a second the callers with the same selectors
	// may make, by the method's name in experimental.ratelimit (fetch_x509_svid,
	// fetch_jwt_svid, fetch_x509_bundles, fetch_jwt_bundles, stream_secrets,
	// fetch_secrets); 0: any number.
	RateLimits map[string]int
	// LogSelectors are the prefixes (k8s:ns, unix) of the selectors that are
	// logged where a caller is refused; nil: all.
	LogSelectors []string
	// Sockets are the per-workload sockets by name; those not named serve as the
	// shared one does.
	Sockets map[string]Socket
	// Call, if not nil, is told of each call that ended: its full method name and
	// its status code's.
	Call func(method, code string, took time.Duration)
	// Stopping ends when streams are to end.
	Stopping context.Context
	// Log may be nil.
	Log *slog.Logger
}

// Socket is what is special about a per-workload socket.
type Socket struct {
	// Only gives no identities but those of entries that name the socket.
	Only bool
}

// Service implements the Workload API (SPIFFE Workload API, sections 5 and 6).
// The WIT-SVID profile is Unimplemented (section 7).
type Service struct {
	workloadpb.UnsafeSpiffeWorkloadAPIServer

	cfg     Config
	log     *slog.Logger
	refusal *refusals
	limits  limits
}

// New returns the service.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{
		cfg: cfg, log: cfg.Log,
		refusal: newRefusals(cfg.Log, cfg.Cache, cfg.LogSelectors),
		limits:  newLimits(cfg.RateLimits, cfg.Log),
	}
}

// Register registers the Workload API on r. The server must use [Codec],
// [Service.UnaryInterceptor] and [Service.StreamInterceptor].
func (s *Service) Register(r grpc.ServiceRegistrar) {
	workloadpb.RegisterSpiffeWorkloadAPIServer(r, s)
}

// FetchX509SVID sends the caller's SVIDs, at once and at each change.
func (s *Service) FetchX509SVID(_ *workloadpb.X509SVIDRequest, stream grpc.ServerStreamingServer[workloadpb.X509SVIDResponse]) error {
	return s.watch(stream.Context(), workloadpb.SpiffeWorkloadAPI_FetchX509SVID_FullMethodName, func(a *svidcache.Answer) error {
		msg, err := a.X509SVIDResponse()
		if err != nil {
			return status.Errorf(codes.Internal, "encode: %v", err)
		}
		return stream.SendMsg(encoded(msg))
	})
}

// FetchX509Bundles sends the bundles that the caller may verify peers with, at
// once and when they change. It has no SVID signed.
func (s *Service) FetchX509Bundles(_ *workloadpb.X509BundlesRequest, stream grpc.ServerStreamingServer[workloadpb.X509BundlesResponse]) error {
	feed := follow.Feed[svidcache.Bundles]{
		Subscribe: s.cfg.Cache.SubscribeBundles,
		Next:      (*svidcache.Subscription).Bundles,
		Send: func(b *svidcache.Bundles) error {
			msg, err := b.X509BundlesResponse()
			if err != nil {
				return status.Errorf(codes.Internal, "encode: %v", err)
			}
			return stream.SendMsg(encoded(msg))
		},
	}
	if s.cfg.AllowUnauthenticatedVerifiers {
		feed.Without = func(error, bool) (*svidcache.Bundles, <-chan struct{}, error) {
			b, _, changed, err := s.cfg.Cache.OwnBundles()
			return b, changed, err
		}
	}
	return run(stream.Context(), s, workloadpb.SpiffeWorkloadAPI_FetchX509Bundles_FullMethodName, feed)
}

// FetchWITSVID is of the WIT-SVID profile, which is optional.
func (*Service) FetchWITSVID(*workloadpb.WITSVIDRequest, grpc.ServerStreamingServer[workloadpb.WITSVIDResponse]) error {
	return status.Error(codes.Unimplemented, "fetching WIT-SVIDs is not implemented")
}

// FetchWITBundles is of the WIT-SVID profile, which is optional.
func (*Service) FetchWITBundles(*workloadpb.WITBundlesRequest, grpc.ServerStreamingServer[workloadpb.WITBundlesResponse]) error {
	return status.Error(codes.Unimplemented, "fetching WIT bundles is not implemented")
}

// WatchX509Context calls update with what the caller of the RPC of ctx is given,
// at once and at each change. It returns a status error, or ctx's. It is for
// further services on the same socket, such as Envoy's SDS; these need no
// security header.
func (s *Service) WatchX509Context(ctx context.Context, update func(*workload.X509Context) error) error {
	return s.watch(ctx, "", func(a *svidcache.Answer) error { return update(a.X509Context()) })
}

// watch sends answers. method is "" where calls are not to be limited.
func (s *Service) watch(ctx context.Context, method string, send func(*svidcache.Answer) error) error {
	return run(ctx, s, method, follow.Feed[svidcache.Answer]{
		Subscribe: s.cfg.Cache.Subscribe, Next: (*svidcache.Subscription).Answer, Send: send,
	})
}

// run sends what there is for the caller of the RPC of ctx until that ends, the
// agent stops, or there is no identity any more.
func run[T any](ctx context.Context, s *Service, method string, feed follow.Feed[T]) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.cfg.Stopping, func() { cancel(errStopping) })()
	who, err := s.attest(ctx)
	if err == nil {
		err = s.limit(ctx, method, who)
	}
	if err == nil {
		feed.Attest, feed.Identities = s.attestCaller, s.cfg.Cache.Identities
		who, err = follow.Run(ctx, who, feed)
	}
	return s.status(ctx, err, who)
}

// errStopping is why a stream ends with the agent.
var errStopping = errors.New("the agent is stopping")

// status turns the end of a call into its status. Never Canceled for what is not
// the caller's doing: go-spiffe's clients then stop for good.
func (s *Service) status(ctx context.Context, err error, who follow.Standing) error {
	switch {
	case errors.Is(context.Cause(ctx), errStopping):
		return status.Error(codes.Unavailable, errStopping.Error())
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, svidcache.ErrNoIdentity):
		s.refusal.log(ctx, who)
		if who.Incomplete() {
			return errNotAttested()
		}
		return status.Error(codes.PermissionDenied, svidcache.ErrNoIdentity.Error())
	case errors.Is(err, svidcache.ErrNotSynced), errors.Is(err, svidcache.ErrPending):
		return status.Error(codes.Unavailable, err.Error())
	}
	return err
}

// attestCaller attests the caller of the RPC of ctx. The error is a status.
func (s *Service) attestCaller(ctx context.Context) (workloadattest.Result, error) {
	result, err := s.cfg.Attestor.AttestContext(ctx)
	if err != nil {
		switch caller, unknown := workloadattest.FromContext(ctx); {
		case ctx.Err() != nil || errors.Is(err, workloadattest.ErrGone):
			s.log.Debug("caller not attested", "reason", err) // its own affair
		case unknown != nil:
			s.refusal.warn("unknown caller", "caller not attested", "reason", err)
		default:
			uid := caller.UID()
			s.refusal.warn(fmt.Sprintf("caller of uid %d", uid), "caller not attested", "pid", caller.PID(), "uid", uid, "reason", err)
		}
		return workloadattest.Result{}, errNotAttested()
	}
	return result, nil
}

// attest attests the caller of the RPC of ctx for the first time.
func (s *Service) attest(ctx context.Context) (follow.Standing, error) {
	result, err := s.attestCaller(ctx)
	if err != nil {
		return follow.Standing{}, err
	}
	var only registration.Selector
	if len(s.cfg.Sockets) > 0 {
		if caller, err := workloadattest.FromContext(ctx); err == nil && s.cfg.Sockets[caller.Socket()].Only {
			only = workloadattest.SocketSelector(caller.Socket())
		}
	}
	return follow.Found(result, only), nil
}

// errNotAttested lets the caller try again: that it could not be known now says
// nothing about its identities.
func errNotAttested() error {
	return status.Error(codes.Unavailable, "caller could not be attested; the agent's log says why")
}

// isSelf reports whether the agent itself calls.
func isSelf(ctx context.Context) bool {
	caller, err := workloadattest.FromContext(ctx)
	return err == nil && caller.PID() == os.Getpid()
}
