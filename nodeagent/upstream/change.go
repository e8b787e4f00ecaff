package upstream

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// change is what became of the entries.
type change struct {
	whole   bool
	entries map[string]registration.Entry
	removed map[string]struct{} // those of which nothing is in entries
}

func newChange() change {
	return change{entries: make(map[string]registration.Entry), removed: make(map[string]struct{})}
}

func (ch change) put(e registration.Entry) {
	delete(ch.removed, e.ID)
	ch.entries[e.ID] = e
}

func (ch change) remove(id string) {
	delete(ch.entries, id)
	ch.removed[id] = struct{}{}
}

// update puts the change in order.
func (ch change) update(b bundles) Update {
	u := Update{Whole: ch.whole, Bundle: b.own.x509, Federated: b.federated, JWT: b.jwt, Tainted: b.own.tainted}
	u.Entries = slices.SortedFunc(maps.Values(ch.entries), func(a, b registration.Entry) int { return cmp.Compare(a.ID, b.ID) })
	if !ch.whole {
		u.Removed = slices.Sorted(maps.Keys(ch.removed))
	}
	return u
}

// entryReader reads entries that came over the wire.
type entryReader struct {
	td  spiffeid.TrustDomain
	log *slog.Logger
}

// read reports false for what cannot be understood or is of another trust domain,
// which it tells of: the other entries still hold.
func (r entryReader) read(p *types.Entry) (registration.Entry, bool) {
	e, err := registration.FromProto(p)
	switch {
	case err != nil:
	case e.ID == "" || len(e.Selectors) == 0:
		err = fmt.Errorf("it has no ID or no selectors")
	case !e.SPIFFEID.MemberOf(r.td) && e.Template.TrustDomain() != r.td:
		err = fmt.Errorf("it is not of trust domain %q", r.td.Name())
	}
	if err != nil {
		r.log.Error("entry left out", "entry_id", p.GetId(), "spiffe_id", idText(p.GetSpiffeId()), "reason", err)
		return registration.Entry{}, false
	}
	return e, true
}

func idText(p *types.SPIFFEID) string { return "spiffe://" + p.GetTrustDomain() + p.GetPath() }
