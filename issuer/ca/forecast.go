package ca

import (
	"cmp"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// Plan is what will happen to the authorities as things stand.
type Plan struct {
	Authorities []PlannedAuthority // active first, then prepared, then old
	Events      []PlannedEvent     // in order of time
	// WaitingFor are live agents that don't hold the bundle with the prepared
	// authority yet.
	WaitingFor []spiffeid.ID
}

// PlannedAuthority is one authority of this issuer.
type PlannedAuthority struct {
	Kind                string // "x509" or "jwt"
	ID                  string
	Status              string // "active", "prepared" or "old"
	IssuedAt, ExpiresAt time.Time
	Tainted             bool
	UpstreamAuthorityID string
}

// PlannedEvent is one thing that will be done, at the latest at At.
type PlannedEvent struct {
	At          time.Time
	Kind        string // "x509" or "jwt"
	Action      string // "prepare", "activate", "expire" or "prune"
	AuthorityID string // empty for one that is not made yet
	Note        string // what follows for users
}

// Plan tells what will happen to the authorities, and when. It is empty before
// the first one.
func (a *Authority) Plan() Plan {
	var p Plan
	v := a.view.Load()
	if v == nil {
		return p
	}
	now := a.cfg.Now()
	for _, k := range a.kinds() {
		records := v.x509
		if k == kindJWT {
			records = v.jwt
		}
		p.Authorities = append(p.Authorities, describe(records)...)
		events, waits := a.forecast(now, k, records)
		p.Events = append(p.Events, events...)
		if waits && a.cfg.Holders != nil && p.WaitingFor == nil {
			p.WaitingFor, _ = a.cfg.Holders.Hold(v.bundle.GetSequenceNumber())
		}
	}
	slices.SortStableFunc(p.Events, func(a, b PlannedEvent) int { return a.At.Compare(b.At) })
	return p
}

func describe(records []*record) []PlannedAuthority {
	names := map[storepb.X509Authority_Status]string{
		storepb.X509Authority_ACTIVE: "active", storepb.X509Authority_PREPARED: "prepared", storepb.X509Authority_OLD: "old",
	}
	var all []PlannedAuthority
	for _, r := range records {
		all = append(all, PlannedAuthority{
			Kind: r.kind.String(), ID: r.id, Status: names[r.status], IssuedAt: r.issued, ExpiresAt: r.notAfter,
			Tainted: r.tainted, UpstreamAuthorityID: r.upstream,
		})
	}
	rank := map[string]int{"active": 0, "prepared": 1, "old": 2}
	slices.SortStableFunc(all, func(a, b PlannedAuthority) int { return cmp.Compare(rank[a.Status], rank[b.Status]) })
	return all
}

// forecast tells the events of one kind, and whether one waits for agents.
func (a *Authority) forecast(now time.Time, k kind, records []*record) (events []PlannedEvent, waits bool) {
	add := func(at time.Time, action, id, note string) {
		events = append(events, PlannedEvent{At: at, Kind: k.String(), Action: action, AuthorityID: id, Note: note})
	}
	active := newest(now, records, storepb.X509Authority_ACTIVE)
	prepared := newest(now, records, storepb.X509Authority_PREPARED)
	switch {
	case active == nil:
		add(now, "prepare", "", "no authority can sign: one is made, and signs, as soon as that is possible")
	case active.distrusted:
		add(now, "activate", "", "the authority that signs is tainted: it is replaced as soon as that is possible")
	case prepared == nil:
		next := &record{kind: k, issued: active.prepareAt(), notAfter: active.prepareAt().Add(a.cfg.TTL), eager: true}
		add(active.prepareAt(), "prepare", "", "a new authority is published in the bundle; it does not sign yet")
		add(active.activateAt(next), "activate", "", a.whenActive(next))
	default:
		c := conditions{now: now}
		if c.held = false; a.cfg.Holders != nil && prepared.eager {
			c.held, _ = a.held()
		}
		todo := activation(active, prepared, c)
		waits = todo.holders && a.cfg.Holders != nil
		add(todo.at, "activate", prepared.id, a.whenActive(prepared))
	}
	for _, r := range records {
		if r.distrusted && !r.tainted && r.status == storepb.X509Authority_OLD {
			continue // revoked: it is out of the bundle, and nothing more happens to it
		}
		if now.Before(r.notAfter) {
			add(r.notAfter, "expire", r.id, "what it signed has expired by then")
		}
		if r != active {
			add(r.notAfter.Add(keepExpired), "prune", r.id, "it leaves the bundle, a day after its end for verifiers whose clock is behind")
		}
	}
	return events, waits
}

// whenActive is the note of an activation.
func (a *Authority) whenActive(next *record) string {
	switch {
	case !next.eager:
		return "new SVIDs are signed by it; earlier on \"localauthority activate\", as it was prepared by hand"
	case a.cfg.Holders == nil:
		return "new SVIDs are signed by it"
	}
	return "new SVIDs are signed by it; earlier, once all live agents hold it"
}
