// Package workloadapi owns the SPIFFE Workload API as the node agent serves it:
// X.509-SVIDs and bundles as streams, JWT-SVIDs one by one, for whoever calls. It
// attests callers through an [Attestor] and takes answers from the caches; it
// decides nothing about identities itself.
package workloadapi

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Attestor finds the selectors of callers.
type Attestor interface {
	// AttestContext returns what the process that made the RPC of ctx is now.
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
// WIT-SVIDs are Unimplemented.
type Service struct {
	workloadpb.UnimplementedSpiffeWorkloadAPIServer

	cfg     Config
	log     *slog.Logger
	refusal *refusals
}

// New returns the service.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, log: cfg.Log, refusal: newRefusals(cfg.Log, cfg.Cache)}
}

// Register registers the Workload API on r. The server must use [Codec],
// [Service.UnaryInterceptor] and [Service.StreamInterceptor].
func (s *Service) Register(r grpc.ServiceRegistrar) {
	workloadpb.RegisterSpiffeWorkloadAPIServer(r, s)
}

// FetchX509SVID sends the caller's SVIDs, at once and at each change.
func (s *Service) FetchX509SVID(_ *workloadpb.X509SVIDRequest, stream grpc.ServerStreamingServer[workloadpb.X509SVIDResponse]) error {
	return s.watch(stream.Context(), func(a *svidcache.Answer) error {
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
	send := func(b *svidcache.Bundles) error {
		msg, err := b.X509BundlesResponse()
		if err != nil {
			return status.Errorf(codes.Internal, "encode: %v", err)
		}
		return stream.SendMsg(encoded(msg))
	}
	return follow(stream.Context(), s, s.cfg.Cache.SubscribeBundles, (*svidcache.Subscription).Bundles, send)
}

// WatchX509Context calls update with what the caller of the RPC of ctx is given,
// at once and at each change. It returns a status error, or ctx's. It is for
// further services on the same socket, such as Envoy's SDS; these need no
// security header.
func (s *Service) WatchX509Context(ctx context.Context, update func(*workload.X509Context) error) error {
	return s.watch(ctx, func(a *svidcache.Answer) error { return update(a.X509Context()) })
}

func (s *Service) watch(ctx context.Context, send func(*svidcache.Answer) error) error {
	return follow(ctx, s, s.cfg.Cache.Subscribe, (*svidcache.Subscription).Answer, send)
}

// errStopping is why a stream ends with the agent.
var errStopping = errors.New("the agent is stopping")

// follow sends what next returns until ctx ends, the agent stops, or there is no
// identity any more. The caller is attested anew before each message but the
// first: it may have executed another program by then.
func follow[T any](ctx context.Context, s *Service, subscribe func(svidcache.Caller) *svidcache.Subscription,
	next func(*svidcache.Subscription, context.Context) (T, error), send func(T) error,
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.cfg.Stopping, func() { cancel(errStopping) })()
	selectors, err := s.attest(ctx)
	if err != nil {
		return err
	}
	sub := subscribe(svidcache.Caller{Selectors: selectors})
	defer sub.Close()
	for first := true; ; first = false {
		v, err := next(sub, ctx)
		if err == nil && !first {
			if selectors, err = s.attest(ctx); err != nil {
				return err
			}
			if sub.Reselect(svidcache.Caller{Selectors: selectors}) {
				v, err = next(sub, ctx)
			}
		}
		if err != nil {
			return s.explain(ctx, err, selectors)
		}
		if err := send(v); err != nil {
			return err
		}
	}
}

func (s *Service) attest(ctx context.Context) ([]registration.Selector, error) {
	result, err := s.cfg.Attestor.AttestContext(ctx)
	if err != nil {
		level := slog.LevelWarn
		if errors.Is(err, workloadattest.ErrGone) {
			level = slog.LevelDebug // its own affair
		}
		s.log.Log(ctx, level, "caller not attested", "reason", err)
		return nil, status.Error(codes.Unavailable, "caller could not be attested; the agent's log says why")
	}
	return result.Selectors, nil
}

// explain turns the end of a subscription into a status. Never Canceled for
// what is not the caller's doing: go-spiffe's clients then stop for good.
func (s *Service) explain(ctx context.Context, err error, selectors []registration.Selector) error {
	switch {
	case errors.Is(context.Cause(ctx), errStopping):
		return status.Error(codes.Unavailable, errStopping.Error())
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, svidcache.ErrNoIdentity):
		s.refusal.log(ctx, selectors)
		return status.Error(codes.PermissionDenied, svidcache.ErrNoIdentity.Error())
	default:
		return status.Error(codes.Unavailable, err.Error())
	}
}

// securityHeader must be "true" in the metadata of each call (SPIFFE Workload
// API, section 4.3): a browser or proxy led astray cannot set it.
const securityHeader = "workload.spiffe.io"

func checkHeader(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(securityHeader); len(v) != 1 || v[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	return nil
}

// UnaryInterceptor requires the security header of the Workload API's calls.
func (s *Service) UnaryInterceptor(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if isWorkloadAPI(info.FullMethod) {
		if err := checkHeader(ctx); err != nil {
			return nil, err
		}
	}
	return handler(ctx, req)
}

// StreamInterceptor is [Service.UnaryInterceptor] for streams.
func (s *Service) StreamInterceptor(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if isWorkloadAPI(info.FullMethod) {
		if err := checkHeader(stream.Context()); err != nil {
			return err
		}
	}
	return handler(srv, stream)
}

func isWorkloadAPI(method string) bool {
	return strings.HasPrefix(method, "/SpiffeWorkloadAPI/")
}
