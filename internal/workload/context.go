// Package workload owns the client side of the SPIFFE Workload API as the
// sidecar and the SDS server need it: one stream kept alive for ever, its last
// good answer, and how old that is. It does not verify peers (internal/mtls
// does) and does not serve the API (nodeagent/workloadapi does).
package workload

import (
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// X509Context is one answer of the Workload API's FetchX509SVID: the X509-SVIDs
// a workload is entitled to, in the issuer's order, and the bundle of every
// trust domain it may verify peers of. It is immutable once published.
type X509Context struct {
	// SVIDs holds at least one SVID; the first one is the default (SPIFFE
	// Workload API, section 5.2.1).
	SVIDs []*x509svid.SVID
	// Bundles has the SVIDs' own trust domains and the federated ones.
	Bundles map[spiffeid.TrustDomain]*x509bundle.Bundle
}

// Default returns the first SVID, or nil if there is none.
func (c *X509Context) Default() *x509svid.SVID {
	if c == nil || len(c.SVIDs) == 0 {
		return nil
	}
	return c.SVIDs[0]
}

// Find returns the SVID with the given SPIFFE ID, or nil if it is not among
// those offered. The first one wins if an ID is offered more than once.
func (c *X509Context) Find(id spiffeid.ID) *x509svid.SVID {
	if c == nil {
		return nil
	}
	for _, svid := range c.SVIDs {
		if svid.ID == id {
			return svid
		}
	}
	return nil
}
