package adminapi

import (
	"context"
	"crypto/x509"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentdebugv1"
)

// infoAge is how old an answer of GetInfo may be: tools poll it.
const infoAge = 5 * time.Second

// debugService is spire.agent.debug.v1.Debug.
type debugService struct {
	agentdebugv1.UnsafeDebugServer
	operators *operators
	deps      Deps

	mu   sync.Mutex // guards what follows
	info *agentdebugv1.GetInfoResponse
	at   time.Time
}

// GetInfo tells what the agent holds, and its own SVID. The answer may be 5 s
// old. An agent that has not joined, or never synced, says so by leaving that out:
// who debugs it wants an answer above all.
func (s *debugService) GetInfo(ctx context.Context, _ *agentdebugv1.GetInfoRequest) (_ *agentdebugv1.GetInfoResponse, err error) {
	defer s.deps.ended(agentdebugv1.Debug_GetInfo_FullMethodName, time.Now(), &err)
	if err := s.operators.check(ctx, agentdebugv1.Debug_GetInfo_FullMethodName); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	// Monotonic: a clock that was set doesn't keep an old answer.
	if s.info != nil && now.Sub(s.at) < infoAge {
		return s.info, nil
	}
	svids := int32(s.deps.Cache.Stats().SVIDs)
	s.at, s.info = now, &agentdebugv1.GetInfoResponse{
		SvidChain: s.chain(now),
		Uptime:    int32(now.Sub(s.deps.Started) / time.Second),
		//lint:ignore SA1019 spire-agent tells it still
		SvidsCount:           svids,
		CachedX509SvidsCount: svids,
		CachedJwtSvidsCount:  int32(s.deps.JWTs.Len()),
	}
	if s.deps.Contact != nil {
		if last := s.deps.Contact().Last; !last.IsZero() {
			s.info.LastSyncSuccess = last.Unix()
		}
	}
	return s.info, nil
}

// chain is the agent's own SVID and what it is verified by, to the root; or, as
// when it has expired, the SVID alone.
func (s *debugService) chain(now time.Time) []*agentdebugv1.GetInfoResponse_Cert {
	if s.deps.SVID == nil {
		return nil
	}
	certs := s.deps.SVID()
	if len(certs) == 0 {
		return nil
	}
	if path := s.verified(certs, now); path != nil {
		certs = path
	}
	var chain []*agentdebugv1.GetInfoResponse_Cert
	for _, cert := range certs {
		p := &agentdebugv1.GetInfoResponse_Cert{ExpiresAt: cert.NotAfter.Unix(), Subject: cert.Subject.String()}
		if id, err := x509svid.IDFromCert(cert); err == nil {
			p.Id = registration.IDProto(id)
		}
		chain = append(chain, p)
	}
	return chain
}

func (s *debugService) verified(certs []*x509.Certificate, now time.Time) []*x509.Certificate {
	own, _, _, err := s.deps.Cache.OwnBundles()
	if err != nil {
		return nil
	}
	bundle, err := x509bundle.ParseRaw(s.deps.TrustDomain, own.ByDomain()[s.deps.TrustDomain])
	if err != nil {
		return nil
	}
	_, paths, err := x509svid.Verify(certs, bundle, x509svid.WithTime(now))
	if err != nil {
		return nil
	}
	return paths[0]
}
