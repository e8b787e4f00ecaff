package adminapi

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/delegatedidentityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
)

// parallelJWTs is how many tokens are fetched at once for a call.
const parallelJWTs = 8

// FetchJWTSVIDs answers with a token for each identity of whom the request names.
func (s *delegatedService) FetchJWTSVIDs(ctx context.Context, req *delegatedidentityv1.FetchJWTSVIDsRequest) (_ *delegatedidentityv1.FetchJWTSVIDsResponse, err error) {
	defer s.deps.ended(delegatedidentityv1.DelegatedIdentity_FetchJWTSVIDs_FullMethodName, time.Now(), &err)
	ctx, cancel := s.streamContext(ctx)
	defer cancel(nil)
	resp, err := s.fetchJWTSVIDs(ctx, cancel, req)
	if err != nil {
		return nil, s.ended(ctx, err)
	}
	return resp, nil
}

func (s *delegatedService) fetchJWTSVIDs(ctx context.Context, cancel context.CancelCauseFunc, req *delegatedidentityv1.FetchJWTSVIDsRequest) (*delegatedidentityv1.FetchJWTSVIDsResponse, error) {
	if len(req.GetAudience()) == 0 || slices.Contains(req.GetAudience(), "") {
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	}
	if err := s.delegates.authorize(ctx); err != nil {
		return nil, err
	}
	subject, err := s.delegates.subject(ctx, req.GetPid(), req.GetSelectors())
	if err != nil {
		return nil, err
	}
	if subject.process != nil {
		// Tokens that took a while are not for who is there no more.
		defer subject.process.watch(cancel)()
	}
	entries, err := s.deps.Cache.Identities(subject.who.Caller())
	if err != nil && !errors.Is(err, svidcache.ErrNoIdentity) {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, withheld)
	switch {
	case len(entries) > 0:
	case subject.who.Incomplete():
		return nil, s.delegates.notAttested(ctx, subject.who.Result().Incomplete())
	default:
		return nil, status.Error(codes.PermissionDenied, svidcache.ErrNoIdentity.Error())
	}
	return s.sign(ctx, entries, req.GetAudience())
}

// sign has the tokens signed, in the order of the entries.
func (s *delegatedService) sign(ctx context.Context, entries []registration.Entry, audience []string) (*delegatedidentityv1.FetchJWTSVIDsResponse, error) {
	resp := &delegatedidentityv1.FetchJWTSVIDsResponse{Svids: make([]*types.JWTSVID, len(entries))}
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(parallelJWTs)
	for i, e := range entries {
		g.Go(func() error {
			token, err := s.deps.JWTs.Fetch(inner, e, audience)
			if err != nil {
				return err
			}
			svid := &types.JWTSVID{Token: token.Text, Id: registration.IDProto(token.ID), ExpiresAt: token.ExpiresAt.Unix(), Hint: e.Hint}
			if !token.IssuedAt.IsZero() {
				svid.IssuedAt = token.IssuedAt.Unix()
			}
			resp.Svids[i] = svid
			return nil
		})
	}
	switch err := g.Wait(); {
	case err == nil:
		return resp, nil
	case errors.Is(err, jwtcache.ErrAudience):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	default:
		// SPIRE's code and text, whatever the issuer's were; a delegate is told the
		// reason, for it is trusted with more.
		return nil, status.Errorf(codes.Unavailable, "could not fetch JWT-SVID: %s", status.Convert(err).Message())
	}
}
