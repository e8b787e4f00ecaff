package registry

import (
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// AuthorizedEntries returns what the agent may hold SVIDs for, each entry once,
// sorted by ID: the entries below it or below one of its aliases, and those
// below these, at any depth. Expired entries are not authorized and lead
// nowhere; neither do those with templates, which are among the answer. The cost
// is that of the answer, not of the number of entries.
func (r *Registry) AuthorizedEntries(agentID spiffeid.ID) []registration.Entry {
	now := r.store.Now()
	r.mu.RLock()
	found, _ := view{idx: r.idx, second: now.Unix()}.reachable(agentID)
	r.mu.RUnlock()
	slices.SortFunc(found, compareNodes)
	entries := make([]registration.Entry, len(found))
	for i, n := range found {
		entries[i] = n.entry()
	}
	return entries
}

// AuthorizedEntry returns the entry if it is one of the agent's
// [Registry.AuthorizedEntries]. It climbs from the entry, so it costs little
// even for an agent that has very many. An instance of an ID template is asked
// for as "ID~/path", ID being that of the entry with the template; the answer is
// that entry with the instance for its SPIFFE ID and without the template. A
// template itself is nothing to be had.
func (r *Registry) AuthorizedEntry(agentID spiffeid.ID, entryID string) (registration.Entry, bool) {
	entryID, path, isInstance := strings.Cut(entryID, "~")
	e, ok := r.authorizedEntry(agentID, entryID)
	switch {
	case !ok || isInstance == e.Template.IsZero():
		return registration.Entry{}, false
	case !isInstance:
		return e, true
	}
	id, err := e.Template.InstanceAt(path)
	if err != nil {
		return registration.Entry{}, false
	}
	e.SPIFFEID, e.Template = id, registration.Template{}
	return e, true
}

func (r *Registry) authorizedEntry(agentID spiffeid.ID, entryID string) (registration.Entry, bool) {
	now := r.store.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	n, ok := r.idx.entries[entryID]
	if !ok || n.expired(now) {
		return registration.Entry{}, false
	}
	starts := view{idx: r.idx, second: now.Unix()}.starts(agentID)
	seen := make(map[spiffeid.ID]struct{})
	todo := []spiffeid.ID{n.parentID}
	for len(todo) > 0 {
		parent := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if slices.Contains(starts, parent) {
			return n.entry(), true
		}
		if _, ok := seen[parent]; ok {
			continue
		}
		seen[parent] = struct{}{}
		for _, above := range r.idx.bySPIFFEID[parent] {
			if !above.expired(now) && !r.idx.isNodeAlias(above) {
				todo = append(todo, above.parentID)
			}
		}
	}
	return registration.Entry{}, false
}

// TemplateOver returns an entry whose ID template reserves the ID, so that it
// must not have rights of its own: whoever can choose a selector can have it.
func (r *Registry) TemplateOver(id spiffeid.ID) (registration.Entry, bool) {
	if !id.MemberOf(r.store.TrustDomain()) {
		return registration.Entry{}, false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for path := id.Path(); path != ""; path = path[:strings.LastIndexByte(path, '/')] {
		if nodes := r.idx.templates[path]; len(nodes) > 0 {
			return nodes[0].entry(), true
		}
	}
	return registration.Entry{}, false
}

// EntriesBySPIFFEID returns the entries, not expired, that give the ID, sorted
// by entry ID: what says whether its holder is an admin or downstream.
func (r *Registry) EntriesBySPIFFEID(id spiffeid.ID) []registration.Entry {
	now := r.store.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	var entries []registration.Entry
	for _, n := range r.idx.bySPIFFEID[id] {
		if !n.expired(now) {
			entries = append(entries, n.entry())
		}
	}
	slices.SortFunc(entries, func(a, b registration.Entry) int { return strings.Compare(a.ID, b.ID) })
	return entries
}
