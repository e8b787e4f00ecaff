package ca

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
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

// Plan tells what will happen to the authorities, and when.
func (a *Authority) Plan() Plan { return Plan{} }
