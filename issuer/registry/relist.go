package registry

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// reuse takes from an older index, which is about to be replaced, what is the
// same in both, so that a pointer that differs is a record that has changed. Of
// the older one the places of its nodes are not good any more.
func (x *index) reuse(old *index) {
	for id, was := range old.entries {
		n := x.entries[id]
		if n == nil || !n.equal(was) {
			continue
		}
		was.at, was.pivot = n.at, n.pivot
		x.entries[id] = was
		x.byParent[n.parentID][n.at[inParent]] = was
		if t := n.template(); t.IsZero() {
			x.bySPIFFEID[n.spiffeID][n.at[inSPIFFEID]] = was
		} else {
			x.templates[t.Prefix()][n.at[inSPIFFEID]] = was
		}
		if x.isNodeAlias(n) {
			x.aliases[n.selectors[n.pivot]][n.at[inAliases]] = was
		}
		if n.expires() {
			x.expiring[id] = was
		}
	}
	x.sortEnds()
	if proto.Equal(x.bundle, old.bundle) {
		x.bundle = old.bundle
	}
	for name, b := range x.federated {
		if was := old.federated[name]; was != nil && proto.Equal(b, was) {
			x.federated[name] = was
		}
	}
}

// relisted puts idx, the records as of the revision, in the place of the index,
// and notes how it differs. mu is held.
func (r *Registry) relisted(idx *index, rev store.Revision) {
	old := r.idx
	r.idx = idx
	if r.applied == 0 { // there was none
		r.first, r.history.base, r.history.mark = rev, rev, rev
	} else {
		r.noteAll(old, rev)
	}
	r.asOf = r.store.Now().Unix()
	for _, n := range idx.endBy(r.asOf) {
		r.lastEnd = max(r.lastEnd, n.end())
	}
	for _, agent := range slices.Collect(maps.Keys(r.followers.byAgent)) {
		r.followers.refile(agent, idx)
		for _, f := range r.followers.byAgent[agent] {
			f.whole, f.pending = true, nil
			f.wake()
		}
	}
	r.hasten()
}

// noteAll adds all that differs between an older index and the present one to the
// history.
func (r *Registry) noteAll(old *index, rev store.Revision) {
	note := func(c change) {
		c.rev = rev
		r.history.add(c)
	}
	for id, was := range old.entries {
		if r.idx.entries[id] != was {
			note(change{kind: store.KindEntry, id: id, node: was})
		}
	}
	for id := range r.idx.entries {
		if old.entries[id] == nil {
			note(change{kind: store.KindEntry, id: id})
		}
	}
	for id, was := range old.agents {
		if !maps.Equal(was.selectors, r.idx.agents[id].selectors) {
			note(change{kind: store.KindAgent, id: id.String(), selectors: was.selectors})
		}
	}
	for id, is := range r.idx.agents {
		if _, known := old.agents[id]; !known && len(is.selectors) > 0 {
			note(change{kind: store.KindAgent, id: id.String()})
		}
	}
	if old.bundle != r.idx.bundle {
		note(change{kind: store.KindBundle, id: r.idx.td.Name(), bundle: old.bundle})
	}
	for name, was := range old.federated {
		if r.idx.federated[name] != was {
			note(change{kind: store.KindFederatedBundle, id: name, bundle: was})
		}
	}
	for name := range r.idx.federated {
		if old.federated[name] == nil {
			note(change{kind: store.KindFederatedBundle, id: name})
		}
	}
}
