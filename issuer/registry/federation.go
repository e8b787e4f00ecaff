package registry

import (
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// FederatedBundle returns the bundle of another trust domain, where it is
// known. It holds the authorities of that trust domain and no other.
func (r *Registry) FederatedBundle(td spiffeid.TrustDomain) (*types.Bundle, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	b, ok := r.idx.federated[td.Name()]
	return b, ok
}

// FederatedBundles returns the bundles of all other trust domains, by name.
func (r *Registry) FederatedBundles() []*types.Bundle {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return byName(r.idx.federated)
}

// FederatedBundleCount returns the number of FederatedBundles.
func (r *Registry) FederatedBundleCount() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.idx.federated)
}

// Relationship returns the federation relationship with the trust domain,
// without its bundle.
func (r *Registry) Relationship(td spiffeid.TrustDomain) (*types.FederationRelationship, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	rel, ok := r.idx.relationships[td.Name()]
	return rel, ok
}

// Relationships returns all federation relationships, by trust domain, without
// their bundles.
func (r *Registry) Relationships() []*types.FederationRelationship {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return byName(r.idx.relationships)
}

func byName[M any](records map[string]M) []M {
	all := make([]M, 0, len(records))
	for _, name := range slices.Sorted(maps.Keys(records)) {
		all = append(all, records[name])
	}
	return all
}
