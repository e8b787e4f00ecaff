package upstream

import (
	"crypto/x509"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// Update is one change of what the issuer lets the agent know, as it told it:
// whole, and not in parts. It is immutable. The first one that [Client.Watch]
// gives is Whole.
type Update struct {
	// Whole says that Entries are all there are. Otherwise they are those that
	// are new or changed, and Removed those that are gone.
	Whole bool
	// Entries are those the agent may get SVIDs for, by ID.
	Entries []registration.Entry
	// Removed are IDs of entries, in order; nil where Whole.
	Removed []string

	// The bundles are all there are in each update. One that did not change is
	// the same pointer as in the update before, and a map of which nothing
	// changed is the same map.

	// Bundle is the own trust domain's.
	Bundle *x509bundle.Bundle
	// Federated has the bundles known of the entries' FederatesWith.
	Federated map[spiffeid.TrustDomain]*x509bundle.Bundle
	// JWT has the keys that JWT-SVIDs are good with, of the own trust domain
	// and of those in Federated.
	JWT map[spiffeid.TrustDomain]*jwtsvid.Bundle
	// Tainted are the authorities in Bundle that SVIDs must no longer hang from.
	// What they signed is trusted until they are removed.
	Tainted []*x509.Certificate
}

// Contact is how the agent stands with its issuer.
type Contact struct {
	// Last is when an issuer last said something; zero: not yet.
	Last time.Time
	// Address is the issuer's, host:port as configured: the one that answered
	// last, or is tried now.
	Address string
	// Push says that the issuer tells of changes by itself.
	Push bool
	// Err is how the last attempt to be up to date ended; nil: the agent is.
	Err error
}

// Modes of Rebootstrap, SPIRE's words.
const (
	RebootstrapNever  = "never"
	RebootstrapAuto   = "auto"
	RebootstrapAlways = "always"
)

// Rebootstrap says what happens where the issuer's certificate is of an authority
// that the agent does not know.
type Rebootstrap struct {
	// Mode is never (as ""), auto or always. With the latter two the agent forgets
	// its bundle and its SVID and begins anew, as at its first start, with a node
	// attestor that can attest again. Where it can't, auto is never and always is
	// refused.
	Mode string
	// Delay is how long it must have been so; 0 is 10 min.
	Delay time.Duration
}
