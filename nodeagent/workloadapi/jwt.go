package workloadapi

import (
	"context"
	"errors"
	"slices"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi/follow"
)

// maxID is the longest SPIFFE ID, in bytes (SPIFFE ID, section 2.3).
const maxID = 2048

// parallelJWTs is how many identities' tokens are fetched at once for a caller.
const parallelJWTs = 8

// FetchJWTSVID answers with a token for each of the caller's identities, or for
// the one asked for (SPIFFE Workload API, section 6.2.1).
func (s *Service) FetchJWTSVID(ctx context.Context, req *workloadpb.JWTSVIDRequest) (*workloadpb.JWTSVIDResponse, error) {
	if len(req.GetAudience()) == 0 || slices.Contains(req.GetAudience(), "") {
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	}
	var only spiffeid.ID
	if req.GetSpiffeId() != "" {
		var err error
		if len(req.GetSpiffeId()) > maxID {
			return nil, status.Errorf(codes.InvalidArgument, "invalid requested SPIFFE ID: %d bytes, at most %d", len(req.GetSpiffeId()), maxID)
		}
		if only, err = spiffeid.FromString(req.GetSpiffeId()); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "invalid requested SPIFFE ID: %v", err)
		}
	}
	who, err := s.attest(ctx)
	if err == nil {
		err = s.limit(ctx, workloadpb.SpiffeWorkloadAPI_FetchJWTSVID_FullMethodName, who)
	}
	if err != nil {
		return nil, s.status(ctx, err, who)
	}
	entries, err := s.identities(who, only)
	if err != nil {
		return nil, s.status(ctx, err, who)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.cfg.Stopping, func() { cancel(errStopping) })()
	svids := make([]*workloadpb.JWTSVID, len(entries))
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(parallelJWTs)
	for i, e := range entries {
		g.Go(func() error {
			token, err := s.cfg.JWTs.Fetch(inner, e, req.GetAudience())
			if err == nil {
				svids[i] = &workloadpb.JWTSVID{SpiffeId: token.ID.String(), Svid: token.Text, Hint: e.Hint}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, s.unsigned(ctx, err)
	}
	return &workloadpb.JWTSVIDResponse{Svids: svids}, nil
}

// identities returns the entries of the caller, or of these the one for only.
func (s *Service) identities(who follow.Standing, only spiffeid.ID) ([]registration.Entry, error) {
	entries, err := s.cfg.Cache.Identities(who.Caller())
	if err != nil || only.IsZero() {
		return entries, err
	}
	entries = slices.DeleteFunc(slices.Clone(entries), func(e registration.Entry) bool { return e.SPIFFEID != only })
	switch {
	case len(entries) > 0:
		return entries, nil
	case who.Incomplete():
		return nil, errNotAttested()
	}
	s.log.Debug("no identity issued: the caller has others than it asked for", "spiffe_id", only)
	return nil, status.Error(codes.PermissionDenied, svidcache.ErrNoIdentity.Error())
}

// unsigned is the status for a token that could not be had. Callers can do
// nothing about most reasons but try again; the log has them.
func (s *Service) unsigned(ctx context.Context, err error) error {
	switch code := status.Code(err); {
	case ctx.Err() != nil:
		return s.status(ctx, err, follow.Standing{})
	case errors.Is(err, jwtcache.ErrAudience):
		return status.Error(codes.InvalidArgument, err.Error())
	case code == codes.InvalidArgument, code == codes.Unimplemented:
		return status.Errorf(code, "could not fetch JWT-SVID: %s", status.Convert(err).Message())
	}
	s.refusal.warn("JWT-SVID: "+err.Error(), "cannot get a JWT-SVID signed", "reason", err)
	return status.Error(codes.Unavailable, "could not fetch JWT-SVID: the issuer did not sign it; the agent's log says why")
}

// FetchJWTBundles sends the keys that the caller may verify JWT-SVIDs with, at
// once and when they change.
func (s *Service) FetchJWTBundles(_ *workloadpb.JWTBundlesRequest, stream grpc.ServerStreamingServer[workloadpb.JWTBundlesResponse]) error {
	feed := follow.Feed[svidcache.JWTBundles]{
		Subscribe: s.cfg.Cache.SubscribeBundles,
		Next:      (*svidcache.Subscription).JWTBundles,
		Send: func(b *svidcache.JWTBundles) error {
			msg, err := b.JWTBundlesResponse()
			if err != nil {
				return status.Errorf(codes.Internal, "encode: %v", err)
			}
			return stream.SendMsg(encoded(msg))
		},
	}
	if s.cfg.AllowUnauthenticatedVerifiers {
		feed.Without = func(error, bool) (*svidcache.JWTBundles, <-chan struct{}, error) {
			_, b, changed, err := s.cfg.Cache.OwnBundles()
			return b, changed, err
		}
	}
	return run(stream.Context(), s, workloadpb.SpiffeWorkloadAPI_FetchJWTBundles_FullMethodName, feed)
}

// ValidateJWTSVID tells a caller whether a token is good for its audience, and
// what it says (SPIFFE Workload API, section 6.2.3). As at SPIRE's agent the caller
// needs no identity for it: without one it can have tokens of the agent's own
// trust domain validated.
func (s *Service) ValidateJWTSVID(ctx context.Context, req *workloadpb.ValidateJWTSVIDRequest) (*workloadpb.ValidateJWTSVIDResponse, error) {
	switch {
	case req.GetAudience() == "":
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	case req.GetSvid() == "":
		return nil, status.Error(codes.InvalidArgument, "svid must be specified")
	}
	who, err := s.attest(ctx)
	if err != nil {
		return nil, s.status(ctx, err, who)
	}
	bundles, err := s.cfg.Cache.JWTBundlesOf(who.Caller())
	if err != nil {
		return nil, s.status(ctx, err, who)
	}
	var unknown bool
	token, err := jwtsvid.Validate(req.GetSvid(), req.GetAudience(), time.Now(), func(td spiffeid.TrustDomain) *jwtsvid.Bundle {
		b := bundles.Bundle(td)
		unknown = b == nil
		return b
	})
	if err != nil && unknown && who.Incomplete() {
		// An entry that federates with the domain may be the caller's.
		return nil, errNotAttested()
	}
	if err != nil {
		s.log.Debug("JWT-SVID refused", "reason", err)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	claims, err := structpb.NewStruct(s.mayTell(token))
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "token's claims are not valid text")
	}
	return &workloadpb.ValidateJWTSVIDResponse{SpiffeId: token.ID.String(), Claims: claims}, nil
}

// mayTell returns the claims that callers are told: of another trust domain's
// tokens those of the standard alone, for what others mean is not agreed on.
func (s *Service) mayTell(token jwtsvid.Token) map[string]any {
	claims := token.Claims()
	if token.ID.MemberOf(s.cfg.TrustDomain) {
		return claims
	}
	for name := range claims {
		if !slices.Contains([]string{"sub", "exp", "aud"}, name) && !slices.Contains(s.cfg.AllowedForeignJWTClaims, name) {
			delete(claims, name)
		}
	}
	return claims
}
