package serverapi

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// NewDownstreamX509CA certifies the authority of the calling issuer, which is
// below this one. Of the CSR only its key counts.
func (s *SVIDService) NewDownstreamX509CA(ctx context.Context, req *svidv1.NewDownstreamX509CARequest) (*svidv1.NewDownstreamX509CAResponse, error) {
	switch {
	case len(req.GetCsr()) == 0:
		return nil, statusError(codes.InvalidArgument, "missing CSR", nil)
	case req.GetPreferredTtl() < 0:
		return nil, statusError(codes.InvalidArgument, "preferred_ttl must not be negative", nil)
	}
	csr, err := ca.ParseCSR(req.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	chain, err := s.deps.CA.SignDownstreamCA(ctx, ca.DownstreamParams{
		PublicKey: csr.PublicKey, TTL: time.Duration(req.GetPreferredTtl()) * time.Second,
	})
	if err != nil {
		return nil, signError("failed to sign downstream X.509 CA", err)
	}
	annotate(ctx, slog.String("serial", chain[0].SerialNumber.String()), slog.Time("expires", chain[0].NotAfter), slog.Any("subject", chain[0].Subject))
	bundle := s.deps.Registry.Bundle()
	if bundle == nil {
		return nil, statusError(codes.NotFound, "bundle not found", nil)
	}
	resp := &svidv1.NewDownstreamX509CAResponse{}
	for _, cert := range chain {
		resp.CaCertChain = append(resp.CaCertChain, cert.Raw)
	}
	for _, authority := range bundle.GetX509Authorities() {
		resp.X509Authorities = append(resp.X509Authorities, authority.GetAsn1())
	}
	return resp, nil
}
