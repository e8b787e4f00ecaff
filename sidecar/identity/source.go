package identity

import (
	"context"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

var (
	// ErrNone is wrapped by the errors of Current and Wait that say why there is no identity.
	ErrNone = workload.ErrNoIdentity
	// ErrExpired is wrapped where there is one that has run out.
	ErrExpired = workload.ErrExpired
)

// Source is where the versions of one identity come from.
type Source interface {
	// Load reads what can be read without waiting: files must be good; the Workload API and ACME are not asked. It is
	// called once, before Run.
	Load(ctx context.Context) error
	// Run keeps the identity fresh until ctx ends, and returns nil then. An error means that there will never be one.
	Run(ctx context.Context) error
	// Reload reads files again. It is all or nothing: on any error everything stays as it was. Connections that are made
	// after a success have the new version; session tickets of the old one are worth nothing. It does nothing for the
	// Workload API.
	Reload(ctx context.Context) error
	// Current returns the identity held. The error says why there is none, and wraps ErrNone or ErrExpired.
	Current() (*Identity, error)
	// Wait is Current, but waits for an identity until ctx ends; the error then is what Current says.
	Wait(ctx context.Context) (*Identity, error)
	// Status tells about the identity held, an expired one included.
	Status() Status
}

// New returns the Source that c describes. It does no I/O. The errors are those of c.Validate, and of what this build
// lacks.
func New(c Config, d Deps) (Source, error) {
	d = d.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	switch {
	case c.WorkloadAPI != "":
		return newWorkloadAPI(c, d)
	case c.ACME != (ACME{}):
		return newACME(c, d)
	case c.PKCS11 != (PKCS11{}) && d.PKCS11 == nil:
		return nil, setting.Errorf("pkcs11_module", c.PKCS11.Module, "this binary was built without PKCS#11: build it with cgo and -tags pkcs11")
	default:
		return newFiles(c, d), nil
	}
}

// Status is what there is to tell about an identity.
type Status struct {
	// Source says where it comes from, such as "Workload API unix:///run/spire/agent.sock".
	Source string
	// SPIFFEID is the own one; empty if there is none.
	SPIFFEID string
	// Subject is the distinguished name of a certificate that is no SVID.
	Subject             string
	NotBefore, NotAfter time.Time
	// LastUpdate is when the version in use arrived or was read.
	LastUpdate time.Time
	// Connected is true while the Workload API streams, and always for files.
	Connected bool
	// Err is why there is no valid identity; nil if there is one.
	Err error
	// ConnectionErr is why there is no stream, or why the last reload failed; nil if all is well.
	ConnectionErr error
	// Bundles are the trust domains whose peers can be verified, sorted. Certificates that are no SVIDs are verified
	// against one bundle, without a TrustDomain; none then means the system's.
	Bundles []BundleStatus
}

// BundleStatus tells about one bundle.
type BundleStatus struct {
	TrustDomain string
	Authorities int
	NotAfter    time.Time // of the authority that runs out first
	Updated     time.Time
}
