package upstream

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

var errSkeleton = errors.New("not built yet")

// SPIREConfig is where a parent is and who we are to it.
type SPIREConfig struct {
	ServerAddress string
	ServerPort    int
	// WorkloadAPISocket is the path or URL of the Workload API that gives us the
	// SVID of a downstream entry.
	WorkloadAPISocket string
	TrustDomain       spiffeid.TrustDomain
}

// SPIRE is a parent SPIRE server or Lanyard issuer. It implements ca.Parent.
type SPIRE struct{ cfg SPIREConfig }

// NewSPIRE returns a SPIRE, which connects when it first certifies.
func NewSPIRE(cfg SPIREConfig) *SPIRE { return &SPIRE{cfg: cfg} }

// Certify implements ca.Parent.
func (s *SPIRE) Certify(context.Context, ca.CertifyRequest) (ca.Certified, error) {
	return ca.Certified{}, errSkeleton
}
