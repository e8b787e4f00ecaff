package registry

import (
	"sort"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// maxHistory bounds what the history takes, in bytes or so: 60,000 new entries,
// or 12,000 of the usual size that were changed or deleted.
const maxHistory = 4 << 20

// bundle is short here for what occurs much.
type bundle = types.Bundle

// change is one record that became another: what it was before.
type change struct {
	rev  store.Revision
	kind store.Kind
	// id is the entry's or agent's, or the name of the trust domain.
	id string
	// Of these the one of its kind is set, unless the record was not there.
	node      *node
	selectors registration.SelectorSet
	bundle    *bundle
}

// bytes is about what keeping the change takes.
func (c change) bytes() int {
	n := 64 // the ID is that of a node
	if c.node != nil {
		n += c.node.bytes()
	}
	for s := range c.selectors {
		n += 64 + len(s.Type) + len(s.Value)
	}
	if c.bundle != nil {
		for _, a := range c.bundle.GetX509Authorities() {
			n += 64 + len(a.GetAsn1())
		}
		n += 512 * len(c.bundle.GetJwtAuthorities())
	}
	return n
}

// history is the latest changes, so that what was at a revision can be told. The
// registry's lock guards it.
type history struct {
	// base is the first revision that can be told.
	base store.Revision
	// changes are those after base in the order of their revisions; the first
	// gone of them are.
	changes []change
	gone    int
	size    int // in bytes or so, of those that are not gone
	limit   int
	// mark is the last revision when turn was last called.
	mark store.Revision
}

func (h *history) add(c change) {
	h.changes = append(h.changes, c)
	h.size += c.bytes()
	for h.size > h.limit {
		h.drop()
	}
}

// turn forgets what was there already when it was called last.
func (h *history) turn(now store.Revision) {
	for h.gone < len(h.changes) && h.changes[h.gone].rev <= h.mark {
		h.drop()
	}
	h.mark = now
}

// drop forgets the oldest change.
func (h *history) drop() {
	first := &h.changes[h.gone]
	h.base = first.rev
	h.size -= first.bytes()
	*first = change{}
	h.gone++
	if h.gone > 64 && h.gone > len(h.changes)/2 {
		h.changes = append([]change(nil), h.changes[h.gone:]...)
		h.gone = 0
	}
}

// since returns what changed after the revision; false if that is not known.
func (h *history) since(rev store.Revision) ([]change, bool) {
	if rev < h.base {
		return nil, false
	}
	kept := h.changes[h.gone:]
	return kept[sort.Search(len(kept), func(i int) bool { return kept[i].rev > rev }):], true
}

// past is what differs between the index and the records at a revision.
type past struct {
	// entries are those that changed since, as they were; nil was not there.
	entries   map[string]*node
	byParent  map[spiffeid.ID][]*node
	aliases   []*node
	selectors map[spiffeid.ID]registration.SelectorSet
	bundles   map[string]*bundle
}

// rewind returns the past before the changes.
func (x *index) rewind(changes []change) *past {
	p := &past{
		entries: make(map[string]*node), byParent: make(map[spiffeid.ID][]*node),
		selectors: make(map[spiffeid.ID]registration.SelectorSet), bundles: make(map[string]*bundle),
	}
	for _, c := range changes {
		switch c.kind {
		case store.KindEntry:
			x.rewindEntry(p, c)
		case store.KindAgent:
			id, err := spiffeid.FromString(c.id)
			if _, known := p.selectors[id]; err == nil && !known {
				p.selectors[id] = c.selectors
			}
		default:
			if _, known := p.bundles[c.id]; !known {
				p.bundles[c.id] = c.bundle
			}
		}
	}
	return p
}

func (x *index) rewindEntry(p *past, c change) {
	if _, known := p.entries[c.id]; known {
		return // it was the earlier one then
	}
	p.entries[c.id] = c.node
	if c.node == nil {
		return
	}
	p.byParent[c.node.parentID] = append(p.byParent[c.node.parentID], c.node)
	if x.isNodeAlias(c.node) {
		p.aliases = append(p.aliases, c.node)
	}
}
