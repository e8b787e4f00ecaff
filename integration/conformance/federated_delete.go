package conformance

import (
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func (c *C) deleteFederated(mode bundlev1.BatchDeleteFederatedBundleRequest_Mode, tds ...string) []*bundlev1.BatchDeleteFederatedBundleResponse_Result {
	c.Helper()
	resp, err := c.bundles.BatchDeleteFederatedBundle(c.ctx, &bundlev1.BatchDeleteFederatedBundleRequest{TrustDomains: tds, Mode: mode})
	c.must(err)
	return resp.Results
}

func deleteFederated(c *C) {
	td := c.foreignDomain().TrustDomain
	c.federate(td)
	results := c.deleteFederated(bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, td, td, "no domain", c.td.Name())
	c.ok(results[0].Status)
	c.equal("trust domain of the result", results[0].TrustDomain, td)
	c.status(results[1].Status, codes.NotFound, "bundle not found")
	c.status(results[2].Status, codes.InvalidArgument, "trust domain argument is not valid: …")
	c.equal("trust domain of the result", results[2].TrustDomain, "no domain")
	c.status(results[3].Status, codes.InvalidArgument, "removing the bundle for the server trust domain is not allowed")
	_, err := c.bundles.BatchDeleteFederatedBundle(c.ctx, &bundlev1.BatchDeleteFederatedBundleRequest{Mode: 7})
	c.refused(err, codes.InvalidArgument, "failed to parse deletion mode: …")
}

// federatedEntry is an entry that federates with a new trust domain.
func (c *C) federatedEntry() (string, *types.Entry) {
	c.Helper()
	td := c.foreignDomain().TrustDomain
	c.federate(td)
	e := c.child(c.pid("/nobody"))
	e.FederatesWith = []string{td}
	return td, c.entry(e)
}

func deleteRestricted(c *C) {
	td, e := c.federatedEntry()
	result := c.deleteFederated(bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, td)[0]
	c.status(result.Status, codes.FailedPrecondition, "failed to delete federated bundle: …")
	_, err := c.getFederated(td)
	c.must(err)
	c.equal("entry", c.getEntry(e.Id), e)
}

func deleteWithEntries(c *C) {
	td, e := c.federatedEntry()
	c.ok(c.deleteFederated(bundlev1.BatchDeleteFederatedBundleRequest_DELETE, td)[0].Status)
	c.equal("entry", c.getEntry(e.Id), (*types.Entry)(nil))
}

func deleteDissociate(c *C) {
	td, e := c.federatedEntry()
	c.ok(c.deleteFederated(bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE, td)[0].Status)
	got := c.getEntry(e.Id)
	if got == nil {
		c.Fatal(fmt.Sprint("the entry is gone: ", e))
	}
	c.equal("federates with", got.FederatesWith, []string{})
}
