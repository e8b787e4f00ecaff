package registry

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// sharer has entries that come together share what they have in common: many
// have the same parent, and most selectors are many entries'. It lives as long
// as one batch, so nothing has to be counted.
type sharer struct {
	texts map[string]string
	ids   map[spiffeid.ID]spiffeid.ID
}

func newSharer() sharer {
	return sharer{texts: make(map[string]string), ids: make(map[spiffeid.ID]spiffeid.ID)}
}

// maxShared bounds what one batch remembers of each.
const maxShared = 20_000

func share[K comparable](known map[K]K, one K) K {
	if same, ok := known[one]; ok {
		return same
	}
	if len(known) < maxShared {
		known[one] = one
	}
	return one
}

// node returns e as the index keeps it, as small as it can be.
func (s sharer) node(e registration.Entry) *node {
	selectors := make([]registration.Selector, len(e.Selectors))
	for i, sel := range e.Selectors {
		selectors[i] = registration.Selector{Type: share(s.texts, sel.Type), Value: share(s.texts, sel.Value)}
	}
	e.Selectors = selectors
	e.ParentID = share(s.ids, e.ParentID)
	return newNode(e)
}
