package identity_test

import (
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

// Connections hold the version that they were made with, maybe for days; it must not hold all peers' chains as well.
func TestReplacedVersionsForgetChains(t *testing.T) {
	ca := testca.New(t, "one.test")
	svid, peer := ca.SVID(t, "spiffe://one.test/a"), ca.SVID(t, "spiffe://one.test/b")
	check := func(s identity.Source, replace func()) {
		t.Helper()
		old := wait(t, s)
		verified := func() uint64 {
			t.Helper()
			if _, err := (mtls.SVIDs{Bundles: old, Chains: old.Chains()}).Verify(peer.Certificates, time.Now()); err != nil {
				t.Fatal(err)
			}
			_, n := old.Chains().Stats()
			return n
		}
		for range 2 {
			if n := verified(); n != 1 {
				t.Errorf("%d chains are remembered, want 1", n)
			}
		}
		replace()
		until(t, "a new version", func() bool { return wait(t, s) != old })
		if verified() != 2 {
			t.Error("the replaced version still holds the peer's chain")
		}
	}

	f := newFolder(t)
	cfg := f.pair(svid.Certificates[0], svid.PrivateKey)
	cfg.TrustBundles = map[string]string{"one.test": f.write("one.pem", testca.PEM(ca.Cert))}
	files := load(t, cfg, identity.Deps{})
	check(files, func() { must(t, files.Reload(t.Context())) })

	api := workloadtest.Start(t, []*x509svid.SVID{svid}, ca.Bundle())
	s := load(t, identity.Config{WorkloadAPI: api.Addr()}, identity.Deps{})
	run(t, s)
	check(s, func() { api.Set(t, []*x509svid.SVID{ca.SVID(t, "spiffe://one.test/a")}, ca.Bundle()) })
}
