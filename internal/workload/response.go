package workload

import (
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// parseResponse turns one FetchX509SVID answer into an X509Context. It is all
// or nothing: one SVID or bundle that does not parse discards the answer
// (SPIFFE Workload API, section 4.5: a message with an empty mandatory field is
// reported and discarded).
func parseResponse(resp *workloadpb.X509SVIDResponse) (*X509Context, error) {
	if len(resp.GetSvids()) == 0 {
		return nil, errors.New("the answer holds no SVID")
	}
	c := &X509Context{Bundles: make(map[spiffeid.TrustDomain]*x509bundle.Bundle)}
	hints := make(map[string]bool)
	for i, m := range resp.GetSvids() {
		svid, bundle, err := parseSVID(m)
		if err != nil {
			return nil, fmt.Errorf("SVID %d (%q): %w", i, m.GetSpiffeId(), err)
		}
		td := bundle.TrustDomain()
		if _, ok := c.Bundles[td]; !ok {
			c.Bundles[td] = bundle
		}
		// Of several SVIDs with one hint the first is used (section 5.2.1).
		if svid.Hint != "" && hints[svid.Hint] {
			continue
		}
		hints[svid.Hint] = true
		c.SVIDs = append(c.SVIDs, svid)
	}
	if err := addFederated(c.Bundles, resp.GetFederatedBundles()); err != nil {
		return nil, err
	}
	return c, nil
}

func parseSVID(m *workloadpb.X509SVID) (*x509svid.SVID, *x509bundle.Bundle, error) {
	// ParseRaw checks the leaf's and the signers' shape (X509-SVID, sections 2
	// and 4) and that the key belongs to the leaf.
	svid, err := x509svid.ParseRaw(m.GetX509Svid(), m.GetX509SvidKey())
	if err != nil {
		return nil, nil, err
	}
	if svid.ID.String() != m.GetSpiffeId() {
		return nil, nil, fmt.Errorf("the certificate says %s", svid.ID)
	}
	svid.Hint = m.GetHint()
	bundle, err := x509bundle.ParseRaw(svid.ID.TrustDomain(), m.GetBundle())
	if err != nil {
		return nil, nil, err
	}
	if bundle.Empty() {
		return nil, nil, fmt.Errorf("the bundle of %s is empty", svid.ID.TrustDomain())
	}
	return svid, bundle, nil
}

// addFederated adds the bundles of foreign trust domains. A bundle under the
// name of an own trust domain is ignored: the SVIDs' own bundle is the truth. A
// foreign domain without X.509 authorities is left out, so nobody of it can be
// verified, and the rest keeps working.
func addFederated(bundles map[spiffeid.TrustDomain]*x509bundle.Bundle, federated map[string][]byte) error {
	own := make(map[spiffeid.TrustDomain]bool, len(bundles))
	for td := range bundles {
		own[td] = true
	}
	for name, der := range federated {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return fmt.Errorf("federated bundle %q: %w", name, err)
		}
		if own[td] || len(der) == 0 {
			continue
		}
		bundle, err := x509bundle.ParseRaw(td, der)
		if err != nil {
			return fmt.Errorf("federated bundle %q: %w", name, err)
		}
		bundles[td] = bundle
	}
	return nil
}
