package adminapi

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/delegatedidentityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi/follow"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// SubscribeToX509SVIDs sends the SVIDs of whom the request names, at once and at
// each change. None is an answer, too, for the delegate may be there before the
// entry is. A stream about a process ends with it.
func (s *delegatedService) SubscribeToX509SVIDs(req *delegatedidentityv1.SubscribeToX509SVIDsRequest, stream delegatedidentityv1.DelegatedIdentity_SubscribeToX509SVIDsServer) (err error) {
	defer s.deps.ended(delegatedidentityv1.DelegatedIdentity_SubscribeToX509SVIDs_FullMethodName, time.Now(), &err)
	ctx, cancel := s.streamContext(stream.Context())
	defer cancel(nil)
	if err := s.delegates.authorize(ctx); err != nil {
		return s.ended(ctx, err)
	}
	subject, err := s.delegates.subject(ctx, req.GetPid(), req.GetSelectors())
	if err != nil {
		return s.ended(ctx, err)
	}
	if subject.process != nil {
		defer subject.process.watch(cancel)()
	}
	none := new(svidcache.Answer)
	_, err = follow.Run(ctx, subject.who, follow.Feed[svidcache.Answer]{
		Attest: func(ctx context.Context) (workloadattest.Result, error) {
			if subject.process == nil {
				return subject.who.Result(), nil
			}
			return s.delegates.attestPinned(ctx, subject.process)
		},
		Again:      s.delegates.authorize,
		Subscribe:  s.deps.Cache.Subscribe,
		Identities: s.deps.Cache.Identities,
		Next:       (*svidcache.Subscription).Answer,
		Without: func(reason error, incomplete bool) (*svidcache.Answer, <-chan struct{}, error) {
			switch {
			case errors.Is(reason, svidcache.ErrNotSynced):
				return nil, nil, reason
			case incomplete:
				return nil, nil, s.delegates.notAttested(ctx, subject.who.Result().Incomplete())
			}
			return none, nil, nil
		},
		Send: func(a *svidcache.Answer) error {
			if a == none {
				return stream.Send(&delegatedidentityv1.SubscribeToX509SVIDsResponse{})
			}
			return stream.Send(x509Response(s.deps.TrustDomain, a))
		},
	})
	return s.ended(ctx, err)
}

// x509Response is an answer in SPIRE's form: in the order of the entries' IDs, by
// which the first is the default.
func x509Response(own spiffeid.TrustDomain, a *svidcache.Answer) *delegatedidentityv1.SubscribeToX509SVIDsResponse {
	resp := new(delegatedidentityv1.SubscribeToX509SVIDsResponse)
	for td := range a.X509Context().Bundles {
		if td != own {
			resp.FederatesWith = append(resp.FederatesWith, td.IDString())
		}
	}
	slices.Sort(resp.FederatesWith)
	for _, id := range a.Identities() {
		if withheld(id.Entry) {
			continue
		}
		svid := &types.X509SVID{Id: registration.IDProto(id.Entry.SPIFFEID), ExpiresAt: id.Chain[0].NotAfter.Unix(), Hint: id.Entry.Hint}
		for _, cert := range id.Chain {
			svid.CertChain = append(svid.CertChain, cert.Raw)
		}
		resp.X509Svids = append(resp.X509Svids, &delegatedidentityv1.X509SVIDWithKey{X509Svid: svid, X509SvidKey: id.KeyDER})
	}
	return resp
}
