package upstream

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// ParseBundle is what tests see of a SPIRE.
func ParseBundle(td spiffeid.TrustDomain, bundle *types.Bundle) (ca.Roots, error) {
	return NewSPIRE(SPIREConfig{TrustDomain: td}).parse(bundle)
}

// What tests see of the files.
var (
	ParseCertificates = parseCertificates
	ParseKey          = parseKey
)
