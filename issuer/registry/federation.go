package registry

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// FederatedBundle returns the bundle of another trust domain, where it is known.
func (r *Registry) FederatedBundle(td spiffeid.TrustDomain) (*types.Bundle, bool) {
	return nil, false
}

// FederatedBundles returns the bundles of all other trust domains, by name.
func (r *Registry) FederatedBundles() []*types.Bundle { return nil }

// Relationship returns the federation relationship with the trust domain,
// without its bundle.
func (r *Registry) Relationship(td spiffeid.TrustDomain) (*types.FederationRelationship, bool) {
	return nil, false
}

// Relationships returns all federation relationships, by trust domain, without
// their bundles.
func (r *Registry) Relationships() []*types.FederationRelationship { return nil }
