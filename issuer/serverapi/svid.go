package serverapi

import (
	"context"
	"fmt"
	"log/slog"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// SVIDService is spire.api.server.svid.v1.SVID.
type SVIDService struct {
	svidv1.UnsafeSVIDServer
	deps Deps
}

// NewSVIDService returns the service.
func NewSVIDService(d Deps) *SVIDService {
	d.setDefaults()
	return &SVIDService{deps: d}
}

// maxBatch is how many SVIDs one call may ask for, SPIRE's limit.
const maxBatch = 500

// BatchNewX509SVID signs SVIDs for entries of the calling agent; the results are
// in the order of the request. Of a CSR only its key counts.
func (s *SVIDService) BatchNewX509SVID(ctx context.Context, req *svidv1.BatchNewX509SVIDRequest) (*svidv1.BatchNewX509SVIDResponse, error) {
	params := req.GetParams()
	switch {
	case len(params) == 0:
		return nil, statusError(codes.InvalidArgument, "missing parameters", nil)
	case len(params) > maxBatch:
		return nil, statusError(codes.ResourceExhausted, fmt.Sprintf("%d parameters: at most %d in a call", len(params), maxBatch), nil)
	}
	resp := &svidv1.BatchNewX509SVIDResponse{Results: make([]*svidv1.BatchNewX509SVIDResponse_Result, 0, len(params))}
	failed := 0
	for _, p := range params {
		if err := ctx.Err(); err != nil {
			return nil, statusError(codes.Canceled, "signing ended early", err)
		}
		result := &svidv1.BatchNewX509SVIDResponse_Result{}
		result.Svid, result.Status = s.newX509SVID(ctx, p)
		if result.Svid == nil {
			failed++
		}
		resp.Results = append(resp.Results, result)
	}
	annotate(ctx, slog.Int("signed", len(params)-failed), slog.Int("failed", failed))
	return resp, nil
}

// newX509SVID signs one SVID; where it returns nil, the status says why.
func (s *SVIDService) newX509SVID(ctx context.Context, p *svidv1.NewX509SVIDParams) (*types.X509SVID, *types.Status) {
	switch {
	case p.GetEntryId() == "":
		return nil, itemStatus(codes.InvalidArgument, "missing entry ID", nil)
	case len(p.GetCsr()) == 0:
		return nil, itemStatus(codes.InvalidArgument, "missing CSR", nil)
	}
	agent := CallerFrom(ctx).ID
	entry, ok := s.deps.Registry.AuthorizedEntry(agent, p.GetEntryId())
	if !ok {
		return nil, itemStatus(codes.NotFound, "entry not found or not authorized", nil)
	}
	csr, err := ca.ParseCSR(p.GetCsr())
	if err != nil {
		return nil, itemStatus(codes.InvalidArgument, err.Error(), nil)
	}
	chain, err := s.deps.CA.SignX509SVID(ctx, ca.Params{
		ID:        entry.SPIFFEID,
		PublicKey: csr.PublicKey,
		DNSNames:  entry.DNSNames,
		TTL:       entry.X509SVIDTTL,
	})
	if err != nil {
		return nil, itemStatus(codes.Internal, "failed to sign X509-SVID", err)
	}
	if s.deps.Log.Enabled(ctx, slog.LevelDebug) {
		attrs := append(svidAttrs(entry.SPIFFEID, chain), slog.String("entry", entry.ID), slog.String("agent", agent.String()))
		s.deps.Log.LogAttrs(ctx, slog.LevelDebug, "X509-SVID signed", attrs...)
	}
	return svidProto(entry.SPIFFEID, chain), itemOK()
}

// unimplemented is the answer of methods that this issuer does not have.
func unimplemented(what string) error {
	return statusError(codes.Unimplemented, what+" is not implemented", nil)
}

// MintJWTSVID is not implemented.
func (s *SVIDService) MintJWTSVID(context.Context, *svidv1.MintJWTSVIDRequest) (*svidv1.MintJWTSVIDResponse, error) {
	return nil, unimplemented("issuing JWT-SVIDs")
}

// NewJWTSVID is not implemented.
func (s *SVIDService) NewJWTSVID(context.Context, *svidv1.NewJWTSVIDRequest) (*svidv1.NewJWTSVIDResponse, error) {
	return nil, unimplemented("issuing JWT-SVIDs")
}

// MintWITSVID is not implemented.
func (s *SVIDService) MintWITSVID(context.Context, *svidv1.MintWITSVIDRequest) (*svidv1.MintWITSVIDResponse, error) {
	return nil, unimplemented("issuing WIT-SVIDs")
}

// BatchNewWITSVID is not implemented.
func (s *SVIDService) BatchNewWITSVID(context.Context, *svidv1.BatchNewWITSVIDRequest) (*svidv1.BatchNewWITSVIDResponse, error) {
	return nil, unimplemented("issuing WIT-SVIDs")
}

// NewDownstreamX509CA is not implemented.
func (s *SVIDService) NewDownstreamX509CA(context.Context, *svidv1.NewDownstreamX509CARequest) (*svidv1.NewDownstreamX509CAResponse, error) {
	return nil, unimplemented("signing downstream authorities")
}
