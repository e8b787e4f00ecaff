package serverapi

import (
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// Deps is what the services work with.
type Deps struct {
	TrustDomain spiffeid.TrustDomain
	// Store is written; Registry is read. A method that has written waits for
	// the registry before it answers.
	Store    *store.Store
	Registry *registry.Registry
	CA       *ca.Authority
	Enroll   *enroll.Enroller
	// AdminIDs are callers with every right of an administrator, of any trust
	// domain whose bundle is known.
	AdminIDs []spiffeid.ID
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Log may be nil.
	Log *slog.Logger
}

func (d *Deps) setDefaults() {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
}
