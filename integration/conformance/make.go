package conformance

import (
	"crypto/x509"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// entry creates one entry, with a selector of its own if it has none, and returns it as the server has it.
func (c *C) entry(e *types.Entry) *types.Entry {
	c.Helper()
	if e.Selectors == nil {
		e.Selectors = []*types.Selector{{Type: "test", Value: c.unique("selector")}}
	}
	resp, err := c.entries.BatchCreateEntry(c.ctx, &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{e}})
	c.must(err)
	c.mustOK(resp.Results[0].Status)
	return resp.Results[0].Entry
}

// child is an entry below a parent.
func (c *C) child(parent *types.SPIFFEID) *types.Entry {
	return &types.Entry{
		SpiffeId: c.pid("/" + c.unique("workload")), ParentId: parent,
		Selectors: []*types.Selector{{Type: "test", Value: c.unique("selector")}},
	}
}

// federate sets the bundle of another trust domain.
func (c *C) federate(td string, roots ...*x509.Certificate) *types.Bundle {
	c.Helper()
	b := foreignBundle(td, roots...)
	resp, err := c.bundles.BatchSetFederatedBundle(c.ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{b}})
	c.must(err)
	c.mustOK(resp.Results[0].Status)
	return b
}

func foreignBundle(td string, roots ...*x509.Certificate) *types.Bundle {
	b := &types.Bundle{TrustDomain: td, RefreshHint: 60, SequenceNumber: 7}
	for _, root := range roots {
		b.X509Authorities = append(b.X509Authorities, &types.X509Certificate{Asn1: root.Raw})
	}
	return b
}

// testcaNew is another authority that claims our trust domain.
func testcaNew(c *C) *testca.CA {
	c.Helper()
	return testca.New(c.T, c.td.Name())
}

func expired(cert *x509.Certificate) {
	cert.NotBefore, cert.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
}

// setField sets a mask's field by its name.
func setField(mask proto.Message, name string) {
	m := mask.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName(protoreflect.Name(name)), protoreflect.ValueOfBool(true))
}

// copyField copies a message's field by its name, if it is there.
func copyField(to, from proto.Message, name string) {
	src, dst := from.ProtoReflect(), to.ProtoReflect()
	if field := src.Descriptor().Fields().ByName(protoreflect.Name(name)); src.Has(field) {
		dst.Set(field, src.Get(field))
	}
}
