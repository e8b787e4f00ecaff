package serverapi

import (
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
)

// TrustDomainService is spire.api.server.trustdomain.v1.TrustDomain.
type TrustDomainService struct {
	trustdomainv1.UnimplementedTrustDomainServer
	deps Deps
}

// NewTrustDomainService returns the service.
func NewTrustDomainService(d Deps) *TrustDomainService {
	d.setDefaults()
	return &TrustDomainService{deps: d}
}
