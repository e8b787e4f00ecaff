package registry

import (
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// Agent returns the record of an agent, banned or not.
func (r *Registry) Agent(id spiffeid.ID) (*storepb.Agent, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	a, ok := r.idx.agents[id]
	return a.record, ok
}

// Agents returns every agent, by SPIFFE ID.
func (r *Registry) Agents() []*storepb.Agent {
	r.mu.RLock()
	agents := make([]*storepb.Agent, 0, len(r.idx.agents))
	for _, a := range r.idx.agents {
		agents = append(agents, a.record)
	}
	r.mu.RUnlock()
	slices.SortFunc(agents, func(a, b *storepb.Agent) int { return strings.Compare(a.SpiffeId, b.SpiffeId) })
	return agents
}

// Bundle returns the trust domain's bundle; nil before the first authority.
func (r *Registry) Bundle() *types.Bundle {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.idx.bundle
}

// Authorities returns this issuer's authorities, oldest first.
func (r *Registry) Authorities() []*storepb.X509Authority {
	r.mu.RLock()
	authorities := make([]*storepb.X509Authority, 0, len(r.idx.authorities))
	for _, a := range r.idx.authorities {
		authorities = append(authorities, a)
	}
	r.mu.RUnlock()
	store.SortAuthorities(authorities)
	return authorities
}
