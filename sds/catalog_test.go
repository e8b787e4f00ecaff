package sds

import (
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload"
)

func find(t testing.TB, c *workload.X509Context, plain bool, name string) *resource {
	t.Helper()
	cs := &catalogs{names: Options{}.withDefaults()}
	return cs.acquire(c, plain).find(name)
}

func TestSDSSecretsAreStable(t *testing.T) {
	var cas []*testca.CA
	for _, td := range []string{"one.test", "two.test", "three.test", "four.test", "five.test"} {
		cas = append(cas, testca.New(t, td))
	}
	svid := cas[0].SVID(t, ownID)
	// The own bundle has two authorities, which come in any order, one of them twice.
	old := testca.New(t, "one.test")
	orders := [][]*testca.CA{{cas[0], old, old}, {old, cas[0]}}
	versions := make(map[string]map[string]bool)
	for i := range 20 {
		c := contextOf([]*x509svid.SVID{svid}, cas...)
		own := x509bundle.New(cas[0].TrustDomain)
		for _, ca := range orders[i%2] {
			own.AddX509Authority(ca.Cert)
		}
		c.Bundles[cas[0].TrustDomain] = own
		for _, name := range []string{"default", "ROOTCA", "ALL", ownDomain} {
			r := find(t, c, false, name)
			if versions[name] == nil {
				versions[name] = make(map[string]bool)
			}
			versions[name][r.version+string(r.body.GetValue())] = true
		}
	}
	for name, seen := range versions {
		if len(seen) != 1 {
			t.Errorf("%s came in %d versions", name, len(seen))
		}
	}
}

func TestSDSPlainTrustedCA(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	c := contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one, two)
	for name, ca := range map[string]*testca.CA{"ROOTCA": one, ownDomain: one, farDomain: two} {
		secret := new(tlsv3.Secret)
		check(t, find(t, c, true, name).body.UnmarshalTo(secret))
		got := string(secret.GetValidationContext().GetTrustedCa().GetInlineBytes())
		if diff := cmp.Diff(string(encodeAuthorities(ca.Bundle())), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if find(t, c, true, name).version == find(t, c, false, name).version {
			t.Errorf("%s has the same version with and without the SPIFFE validator", name)
		}
	}
	if find(t, c, true, "ALL") != nil {
		t.Error("several trust domains in one trusted_ca")
	}
}

func TestSDSServesNoEmptyBundleAndNoExpiredSVID(t *testing.T) {
	one := testca.New(t, "one.test")
	past := testca.Lifetime(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	c := contextOf([]*x509svid.SVID{one.SVID(t, ownID, past), one.SVID(t, secondID)}, one)
	two := spiffeid.RequireTrustDomainFromString("two.test")
	c.Bundles[two] = x509bundle.New(two)
	if find(t, c, false, farDomain) != nil {
		t.Error("Envoy rejects a bundle without authorities")
	}
	src := newSource()
	src.set(c)
	client := dialDelta(t, serveSource(t, src, Options{}))
	client.subscribe("default", secondID, "ALL")
	got := client.expect([]string{"ALL", secondID}, nil)
	wantDomains(t, got["ALL"], "one.test")
}

func TestSDSStreamsShareOneEncodedSecret(t *testing.T) {
	one := testca.New(t, "one.test")
	c := contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one)
	cs := &catalogs{names: Options{}.withDefaults()}
	a, b := cs.acquire(c, false), cs.acquire(c, false)
	if a.find("default") != b.find("default") {
		t.Error("the SVID is encoded for each stream")
	}
	cs.release(a)
	if len(cs.in) != 1 {
		t.Error("the catalog is gone while a stream uses it")
	}
	cs.release(b)
	if len(cs.in) != 0 {
		t.Error("the catalog, and the key in it, outlives its streams")
	}
	for range 3000 {
		a.find(strings.Repeat("x", len(a.made)+1))
	}
	if len(a.made) != 1 {
		t.Errorf("%d names of nothing are remembered", len(a.made)-1)
	}
}

func TestSDSNamesCanBeChosen(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one, two))
	// As SPIRE's documentation has it for Istio.
	opts := Options{SVIDName: "default", BundleName: "null", AllBundlesName: "ROOTCA"}
	check(t, opts.Validate())
	c := dialDelta(t, serveSource(t, src, opts))
	c.subscribe("default", "null", "ROOTCA", "ALL")
	got := c.expect([]string{"ROOTCA", "default", "null"}, nil)
	wantDomains(t, got["null"], "one.test")
	wantDomains(t, got["ROOTCA"], "one.test", "two.test")

	if err := (Options{SVIDName: "*"}).Validate(); err == nil {
		t.Error("the wildcard was taken for a name")
	}
	if err := (Options{SVIDName: "ALL"}).Validate(); err == nil || !strings.Contains(err.Error(), "default_svid_name and default_all_bundles_name") {
		t.Errorf("got %v", err)
	}
}

func TestSDSNodeChoosesTheValidator(t *testing.T) {
	one := testca.New(t, "one.test")
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	metadata := func(v any) *corev3.Node {
		fields, err := structpb.NewStruct(map[string]any{"disable_spiffe_cert_validation": v})
		check(t, err)
		return &corev3.Node{Metadata: fields}
	}
	envoy := func(minor uint32) *corev3.Node {
		return &corev3.Node{UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{
			UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: minor}},
		}}
	}
	for _, tt := range []struct {
		name    string
		node    *corev3.Node
		disable bool
		plain   bool
	}{
		{"nothing said", nil, false, false},
		{"disabled", nil, true, true},
		{"disabled, but not by the node", metadata(false), true, false},
		{"disabled by the node", metadata(true), false, true},
		{"disabled by the node's text", metadata("true"), false, true},
		{"nonsense in the node", metadata("perhaps"), false, false},
		{"an old Envoy", envoy(17), false, true},
		{"a recent Envoy", envoy(40), false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dialSotW(t, serveSource(t, src, Options{DisableSPIFFECertValidation: tt.disable}))
			c.send(&discoveryv3.DiscoveryRequest{Node: tt.node, ResourceNames: []string{"ROOTCA"}})
			validation := c.next()["ROOTCA"].GetValidationContext()
			if got := validation.GetTrustedCa() != nil; got != tt.plain {
				t.Errorf("plain trusted_ca: %v, want %v", got, tt.plain)
			}
			if got := validation.GetCustomValidatorConfig() == nil; got != tt.plain {
				t.Errorf("no SPIFFE validator: %v, want %v", got, tt.plain)
			}
		})
	}
}
