package serverapi

import (
	"context"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/debugv1"
)

// infoAge is how old an answer of [DebugService.GetInfo] may be: tools poll it.
const infoAge = 5 * time.Second

// DebugService is spire.api.server.debug.v1.Debug.
type DebugService struct {
	debugv1.UnsafeDebugServer
	deps   Deps
	source *source

	mu   sync.Mutex // guards what follows
	info *debugv1.GetInfoResponse
	at   time.Time
}

// NewDebugService returns the service.
func NewDebugService(d Deps) *DebugService {
	d.setDefaults()
	return &DebugService{deps: d, source: newSource(d)}
}

// GetInfo tells how much there is of what, and the issuer's own SVID. The answer
// may be 5 s old.
func (s *DebugService) GetInfo(context.Context, *debugv1.GetInfoRequest) (*debugv1.GetInfoResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.deps.Now()
	// A clock that was set back makes the answer anew, too.
	if age := now.Sub(s.at); s.info != nil && age >= 0 && age < infoAge {
		return s.info, nil
	}
	chain, err := s.chain(now)
	if err != nil {
		return nil, err
	}
	s.at = now
	s.info = &debugv1.GetInfoResponse{
		SvidChain:    chain,
		Uptime:       int32(now.Sub(s.deps.Started) / time.Second),
		AgentsCount:  int32(s.deps.Registry.AgentCount()),
		EntriesCount: int32(s.deps.Registry.EntryCount()),
		// With the own one, as SPIRE counts.
		FederatedBundlesCount: int32(len(s.deps.Registry.FederatedBundles()) + 1),
	}
	return s.info, nil
}

// chain is the issuer's own SVID and what it is verified by, to the root.
func (s *DebugService) chain(now time.Time) ([]*debugv1.GetInfoResponse_Cert, error) {
	svid, err := s.source.SVID()
	if err != nil {
		return nil, statusError(codes.Unavailable, "server is initializing", err)
	}
	bundle, err := s.source.Bundle(s.deps.TrustDomain)
	if err != nil {
		return nil, statusError(codes.Internal, "failed to parse bundle", err)
	}
	_, paths, err := x509svid.Verify(svid.Certificates, bundle, x509svid.WithTime(now))
	if err != nil {
		return nil, statusError(codes.Internal, "failed verification against bundle", err)
	}
	var chain []*debugv1.GetInfoResponse_Cert
	for _, cert := range paths[0] {
		p := &debugv1.GetInfoResponse_Cert{ExpiresAt: cert.NotAfter.Unix(), Subject: cert.Subject.String()}
		if id, err := x509svid.IDFromCert(cert); err == nil {
			p.Id = registration.IDProto(id)
		}
		chain = append(chain, p)
	}
	return chain, nil
}
