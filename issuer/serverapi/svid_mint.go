package serverapi

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// MintX509SVID signs an SVID for an administrator, with no entry: the CSR says
// the SPIFFE ID (its one URI SAN), the DNS names and the subject.
func (s *SVIDService) MintX509SVID(ctx context.Context, req *svidv1.MintX509SVIDRequest) (*svidv1.MintX509SVIDResponse, error) {
	switch {
	case len(req.GetCsr()) == 0:
		return nil, statusError(codes.InvalidArgument, "missing CSR", nil)
	case req.GetTtl() < 0:
		return nil, statusError(codes.InvalidArgument, "ttl must not be negative", nil)
	}
	csr, err := ca.ParseCSR(req.GetCsr())
	if err != nil {
		return nil, csrError(err, "malformed CSR", "failed to verify CSR signature")
	}
	id, err := s.mintID(csr)
	if err != nil {
		return nil, err
	}
	for _, name := range csr.DNSNames {
		if err := registration.ValidateDNSName(name); err != nil {
			return nil, statusError(codes.InvalidArgument, "CSR DNS name is invalid", err)
		}
	}
	if err := wildcardOverlap(csr.DNSNames); err != nil {
		return nil, statusError(codes.InvalidArgument, "CSR DNS name contains a wildcard that covers another non-wildcard name", err)
	}
	chain, err := s.deps.CA.SignX509SVID(ctx, ca.Params{
		ID:        id,
		PublicKey: csr.PublicKey,
		DNSNames:  csr.DNSNames,
		TTL:       time.Duration(req.GetTtl()) * time.Second,
		Subject:   csr.Subject,
	})
	if err != nil {
		return nil, signError("failed to sign X509-SVID", err)
	}
	annotate(ctx, append(svidAttrs(id, chain), slog.Any("dns_names", csr.DNSNames))...)
	return &svidv1.MintX509SVIDResponse{Svid: svidProto(id, chain)}, nil
}

// wildcardOverlap refuses a name that a wildcard beside it covers, as SPIRE does.
func wildcardOverlap(names []string) error {
	for _, name := range names {
		_, parent, ok := strings.Cut(name, ".")
		if ok && !strings.HasPrefix(name, "*") && slices.Contains(names, "*."+parent) {
			return fmt.Errorf("name %q is covered by %q", name, "*."+parent)
		}
	}
	return nil
}

func (s *SVIDService) mintID(csr *x509.CertificateRequest) (spiffeid.ID, error) {
	switch len(csr.URIs) {
	case 0:
		return spiffeid.ID{}, statusError(codes.InvalidArgument, "CSR URI SAN is required", nil)
	case 1:
	default:
		return spiffeid.ID{}, statusError(codes.InvalidArgument, "only one URI SAN is expected", nil)
	}
	id, err := spiffeid.FromURI(csr.URIs[0])
	if err == nil {
		err = registration.WorkloadID(s.deps.TrustDomain, id)
	}
	if err != nil {
		return spiffeid.ID{}, statusError(codes.InvalidArgument, "CSR URI SAN is invalid", err)
	}
	return id, nil
}
