package registry

import (
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// marker notes, for the followers that it concerns, how entries come and leave.
// It climbs from the entry to where agents start, so its cost is that of the
// climb and of those it finds. It lives as long as a batch.
type marker struct {
	r *Registry
	// reach is who reaches an ID, as found for entries before; through has every
	// ID that was climbed over for it.
	reach   map[spiffeid.ID][]*Follower
	through map[spiffeid.ID]struct{}
}

// forget drops what was found: structure has changed.
func (m *marker) forget() { m.reach, m.through = nil, nil }

// entry takes the place of an entry in the index, and notes it.
func (m *marker) entry(rev store.Revision, id string, is *node) {
	x := m.r.idx
	was := x.entries[id]
	moved := m.moved(was, is)
	if was != nil {
		m.left(was, moved)
	}
	x.deleteEntry(id)
	if is != nil {
		x.putEntry(is)
		m.came(is, moved)
	}
	if was != nil || is != nil {
		m.r.history.add(change{rev: rev, kind: store.KindEntry, id: id, node: was})
	}
}

// moved reports whether what hangs from the entry is affected.
func (m *marker) moved(was, is *node) bool {
	if was == nil || is == nil {
		return true
	}
	x := m.r.idx
	return was.parentID != is.parentID || was.spiffeID != is.spiffeID ||
		was.expiredAt(m.r.asOf) != is.expiredAt(m.r.asOf) ||
		(x.isNodeAlias(was) || x.isNodeAlias(is)) && !slices.Equal(was.selectors, is.selectors)
}

// agent takes what has become of an agent, and wakes its followers: it may have
// lost its rights.
func (m *marker) agent(rev store.Revision, e store.Event) {
	id, err := spiffeid.FromString(e.ID)
	if err != nil {
		return // the store has checked it
	}
	was := m.r.idx.agents[id].selectors
	m.r.idx.apply(e)
	changed := !maps.Equal(was, m.r.idx.agents[id].selectors)
	if changed {
		m.forget()
		m.r.followers.refile(id, m.r.idx)
		m.r.history.add(change{rev: rev, kind: store.KindAgent, id: e.ID, selectors: was})
	}
	for _, f := range m.r.followers.byAgent[id] {
		f.whole = f.whole || changed
		f.wake()
	}
}

// bundle takes what has become of a bundle: the own one if name is empty.
func (m *marker) bundle(rev store.Revision, e store.Event) {
	name, own := e.ID, e.Kind == store.KindBundle
	if own {
		name = m.r.idx.td.Name()
	}
	was := view{idx: m.r.idx}.bundle(name)
	m.r.idx.apply(e)
	m.r.history.add(change{rev: rev, kind: e.Kind, id: name, bundle: was})
	for _, list := range m.r.followers.byAgent {
		for _, f := range list {
			if own || f.domains == nil || f.domains[name] > 0 {
				f.wake()
			}
		}
	}
}

// left notes that n, which the index still has, goes. moved says that what hangs
// from it goes too.
func (m *marker) left(n *node, moved bool) {
	m.each(n, moved, func(f *Follower) { f.note(n, nil) })
}

// came notes that n has come.
func (m *marker) came(n *node, moved bool) {
	m.each(n, moved, func(f *Follower) { f.note(nil, n) })
}

func (m *marker) each(n *node, moved bool, note func(*Follower)) {
	v := view{idx: m.r.idx, second: m.r.asOf}
	if m.r.followers.count == 0 || !v.live(n) {
		return
	}
	carries := moved && n.template().IsZero() && v.leads(n.spiffeID)
	visit := func(f *Follower) {
		if carries {
			f.whole, f.pending = true, nil
		} else {
			note(f)
		}
		f.wake()
	}
	for _, f := range m.reaching(v, n.parentID) {
		visit(f)
	}
	if carries && v.idx.isNodeAlias(n) {
		m.r.followers.having(n.selectors, visit)
	}
	m.forgetOver(n, moved) // what goes is still there
}

// forgetOver drops what was found by climbing over n, if that has moved.
func (m *marker) forgetOver(n *node, moved bool) {
	if _, passed := m.through[n.spiffeID]; passed && moved {
		m.forget()
	}
}

// reaching returns the followers whose agents may have entries with that parent;
// some of them perhaps twice.
func (m *marker) reaching(v view, parent spiffeid.ID) []*Follower {
	if found, ok := m.reach[parent]; ok {
		return found
	}
	if m.reach == nil {
		m.reach, m.through = make(map[spiffeid.ID][]*Follower), make(map[spiffeid.ID]struct{})
	}
	var found []*Follower
	seen := map[spiffeid.ID]struct{}{parent: {}}
	todo := []spiffeid.ID{parent}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		m.through[id] = struct{}{}
		found = append(found, m.r.followers.byAgent[id]...)
		for _, above := range v.idx.bySPIFFEID[id] {
			if !v.live(above) {
				continue
			}
			if v.idx.isNodeAlias(above) {
				m.r.followers.having(above.selectors, func(f *Follower) { found = append(found, f) })
			} else if _, ok := seen[above.parentID]; !ok {
				seen[above.parentID] = struct{}{}
				todo = append(todo, above.parentID)
			}
		}
	}
	m.reach[parent] = found
	return found
}

// note notes that an entry was, or is, the agent's; one of both is nil.
func (f *Follower) note(was, is *node) {
	if f.whole || f.domains == nil {
		return // it compares anyway
	}
	n := was
	if n == nil {
		n = is
	}
	p, known := f.pending[n.id]
	if !known && len(f.pending) == maxPending {
		f.whole, f.pending = true, nil
		return
	}
	if !known {
		p.was = was
	}
	p.is = is
	if f.pending == nil {
		f.pending = make(map[string]pending)
	}
	f.pending[n.id] = p
}
