package adminapi

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/delegatedidentityv1"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
)

// delegatedService is spire.api.agent.delegatedidentity.v1.DelegatedIdentity.
type delegatedService struct {
	delegatedidentityv1.UnsafeDelegatedIdentityServer
	delegates *delegates
	deps      Deps
}

// errStopping is why a stream ends with the agent.
var errStopping = errors.New("the agent is stopping")

// streamContext ends with the agent, too.
func (s *delegatedService) streamContext(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if s.deps.Stopping == nil {
		return ctx, cancel
	}
	stop := context.AfterFunc(s.deps.Stopping, func() { cancel(errStopping) })
	return ctx, func(cause error) {
		stop()
		cancel(cause)
	}
}

// ended turns what ends a call into its status.
func (s *delegatedService) ended(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errStopping):
		return status.Error(codes.Unavailable, errStopping.Error())
	case errors.Is(cause, errEnded):
		return status.Error(codes.NotFound, errEnded.Error())
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	// Of the caches: not synced, or being issued still.
	return status.Error(codes.Unavailable, err.Error())
}

// SubscribeToX509Bundles sends the bundles of all trust domains that the agent
// knows, at once and when they change.
func (s *delegatedService) SubscribeToX509Bundles(_ *delegatedidentityv1.SubscribeToX509BundlesRequest, stream delegatedidentityv1.DelegatedIdentity_SubscribeToX509BundlesServer) (err error) {
	defer s.deps.ended(delegatedidentityv1.DelegatedIdentity_SubscribeToX509Bundles_FullMethodName, time.Now(), &err)
	return s.followBundles(stream.Context(), func(b *svidcache.Bundles, _ *svidcache.JWTBundles) error {
		resp := &delegatedidentityv1.SubscribeToX509BundlesResponse{CaCertificates: make(map[string][]byte)}
		for td, der := range b.ByDomain() {
			resp.CaCertificates[td.IDString()] = der
		}
		return stream.Send(resp)
	})
}

// SubscribeToJWTBundles is the same for the keys of JWT-SVIDs.
func (s *delegatedService) SubscribeToJWTBundles(_ *delegatedidentityv1.SubscribeToJWTBundlesRequest, stream delegatedidentityv1.DelegatedIdentity_SubscribeToJWTBundlesServer) (err error) {
	defer s.deps.ended(delegatedidentityv1.DelegatedIdentity_SubscribeToJWTBundles_FullMethodName, time.Now(), &err)
	return s.followBundles(stream.Context(), func(_ *svidcache.Bundles, b *svidcache.JWTBundles) error {
		resp := &delegatedidentityv1.SubscribeToJWTBundlesResponse{Bundles: make(map[string][]byte)}
		for td, doc := range b.ByDomain() {
			resp.Bundles[td.IDString()] = doc
		}
		return stream.Send(resp)
	})
}

// followBundles asks anew before each message whether the caller is a delegate.
func (s *delegatedService) followBundles(ctx context.Context, send func(*svidcache.Bundles, *svidcache.JWTBundles) error) error {
	ctx, cancel := s.streamContext(ctx)
	defer cancel(nil)
	for {
		if err := s.delegates.authorize(ctx); err != nil {
			return s.ended(ctx, err)
		}
		x509, jwt, changed, err := s.deps.Cache.AllBundles()
		if err != nil {
			return s.ended(ctx, err)
		}
		if err := send(x509, jwt); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s.ended(ctx, ctx.Err())
		}
	}
}
