package registry

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// index is the records and the ways to find them. The registry's lock guards it;
// the entries in it are never modified, only replaced.
type index struct {
	td       spiffeid.TrustDomain
	issuerID spiffeid.ID

	entries    map[string]*node
	byParent   map[spiffeid.ID][]*node
	bySPIFFEID map[spiffeid.ID][]*node
	// aliases holds each node alias once, under one of its selectors.
	aliases map[registration.Selector][]*node
	// templates holds the entries with ID templates, by prefix.
	templates map[string][]*node
	// expiring holds the entries that have an expiry. ends is a heap of them, the
	// first to expire on top, without those that have been taken off for it, and
	// perhaps with some that are not here any more.
	expiring map[string]*node
	ends     []*node

	agents      map[spiffeid.ID]agent
	bundle      *types.Bundle
	authorities map[string]*storepb.X509Authority
	// federated and relationships are by the name of the trust domain.
	federated     map[string]*types.Bundle
	relationships map[string]*types.FederationRelationship

	// sorted is every entry by ID as of the time that dirty was last empty;
	// dirty is the IDs that came, changed or went since.
	sorted []*node
	dirty  map[string]struct{}
}

type agent struct {
	record    *storepb.Agent
	selectors registration.SelectorSet
}

func newIndex(td spiffeid.TrustDomain) *index {
	return &index{
		td:            td,
		issuerID:      spiffeid.RequireFromPath(td, "/spire/server"),
		entries:       make(map[string]*node),
		byParent:      make(map[spiffeid.ID][]*node),
		bySPIFFEID:    make(map[spiffeid.ID][]*node),
		aliases:       make(map[registration.Selector][]*node),
		templates:     make(map[string][]*node),
		expiring:      make(map[string]*node),
		agents:        make(map[spiffeid.ID]agent),
		authorities:   make(map[string]*storepb.X509Authority),
		federated:     make(map[string]*types.Bundle),
		relationships: make(map[string]*types.FederationRelationship),
		dirty:         make(map[string]struct{}),
	}
}

func (x *index) load(snap store.Snapshot) {
	share := newSharer()
	for _, e := range snap.Entries {
		x.putEntry(share.node(e)) // a copy: the snapshot must not live as long as one of its entries
	}
	for _, a := range snap.Agents {
		x.putAgent(a)
	}
	x.bundle = snap.Bundle
	for _, a := range snap.Authorities {
		x.authorities[a.AuthorityId] = a
	}
	for _, b := range snap.Federated {
		x.federated[b.TrustDomain] = b
	}
	for _, r := range snap.Relationships {
		x.relationships[r.TrustDomain] = r
	}
}

// apply takes what is no entry.
func (x *index) apply(e store.Event) {
	switch e.Kind {
	case store.KindAgent:
		if e.Deleted {
			if id, err := spiffeid.FromString(e.ID); err == nil {
				delete(x.agents, id)
			}
		} else {
			x.putAgent(e.Agent)
		}
	case store.KindBundle:
		x.bundle = e.Bundle
	case store.KindAuthority:
		applyTo(x.authorities, e, e.Authority)
	case store.KindFederatedBundle:
		applyTo(x.federated, e, e.Bundle)
	case store.KindRelationship:
		applyTo(x.relationships, e, e.Relationship)
	}
}

func applyTo[M any](records map[string]M, e store.Event, m M) {
	if e.Deleted {
		delete(records, e.ID)
	} else {
		records[e.ID] = m
	}
}

func (x *index) putEntry(n *node) {
	x.entries[n.id] = n
	x.dirty[n.id] = struct{}{}
	file(x.byParent, n.parentID, n, inParent)
	if t := n.template(); t.IsZero() {
		file(x.bySPIFFEID, n.spiffeID, n, inSPIFFEID)
	} else {
		file(x.templates, t.Prefix(), n, inSPIFFEID)
	}
	if x.isNodeAlias(n) {
		n.pivot = x.pivot(n)
		file(x.aliases, n.selectors[n.pivot], n, inAliases)
	}
	if n.expires() {
		x.expiring[n.id] = n
		x.awaitEnd(n)
	}
}

func (x *index) deleteEntry(id string) {
	n, ok := x.entries[id]
	if !ok {
		return
	}
	delete(x.entries, id)
	x.dirty[id] = struct{}{}
	unfile(x.byParent, n.parentID, n, inParent)
	if t := n.template(); t.IsZero() {
		unfile(x.bySPIFFEID, n.spiffeID, n, inSPIFFEID)
	} else {
		unfile(x.templates, t.Prefix(), n, inSPIFFEID)
	}
	if x.isNodeAlias(n) {
		unfile(x.aliases, n.selectors[n.pivot], n, inAliases)
	}
	delete(x.expiring, id)
}

// hasEntries reports whether the ID can be that of an agent that has any.
func (x *index) hasEntries(agent spiffeid.ID) bool {
	return agent.MemberOf(x.td) && agent != x.issuerID
}

// isNodeAlias reports whether n gives an ID to every agent with its selectors.
// One without selectors would be everybody's; one with a template has no ID
// that entries could hang from.
func (x *index) isNodeAlias(n *node) bool {
	return n.parentID == x.issuerID && len(n.selectors) > 0 && n.template().IsZero()
}

// pivot chooses the selector that fewest aliases are filed under: agents of one
// cluster share some, and would look through all of them.
func (x *index) pivot(n *node) int32 {
	rarest := 0
	for i, s := range n.selectors {
		if len(x.aliases[s]) < len(x.aliases[n.selectors[rarest]]) {
			rarest = i
		}
	}
	return int32(rarest)
}

func (x *index) putAgent(record *storepb.Agent) {
	id, err := spiffeid.FromString(record.SpiffeId)
	if err != nil {
		return // the store has checked it
	}
	x.agents[id] = agent{record: record, selectors: selectorsOf(record)}
}

func selectorsOf(record *storepb.Agent) registration.SelectorSet {
	selectors := make(registration.SelectorSet, len(record.Selectors))
	for _, s := range record.Selectors {
		selectors[registration.Selector{Type: s.Type, Value: s.Value}] = struct{}{}
	}
	return selectors
}

// file appends n to the list under key.
func file[K comparable](lists map[K][]*node, key K, n *node, which int) {
	n.at[which] = int32(len(lists[key]))
	lists[key] = append(lists[key], n)
}

// unfile removes n from the list under key; the last one takes its place.
func unfile[K comparable](lists map[K][]*node, key K, n *node, which int) {
	list := lists[key]
	last := list[len(list)-1]
	list[n.at[which]], last.at[which] = last, n.at[which]
	list[len(list)-1] = nil
	if len(list) == 1 {
		delete(lists, key)
		return
	}
	lists[key] = list[:len(list)-1]
}
