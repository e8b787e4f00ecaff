package policy

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// A client that names nobody accepts its own trust domain at most.
func TestGap02ClientNamesWhomItExpects(t *testing.T) {
	if _, err := Compile(Config{Direction: Outbound}, Deps{}); err == nil || !strings.Contains(err.Error(), "an outbound tunnel names whom it expects") {
		t.Error(err)
	}
	evil := spiffeid.RequireFromString("spiffe://other.test/evil")
	for _, c := range []Config{{OwnTrustDomain: true}, {AllowURIs: []string{"**"}}, {AllowURIs: []string{"spiffe://*/**"}}} {
		c.Direction = Outbound
		if d := compiled(t, c).Decide(t.Context(), Request{Own: web, Peer: evil}); d.Allowed {
			t.Errorf("%+v: %+v", c, d)
		}
	}
}

// A refusal names the peer.
func TestGap06RefusalNamesThePeer(t *testing.T) {
	for _, c := range []Config{{OwnTrustDomain: true}, {AllowURIs: []string{"spiffe://x/y"}}, {AllowCNs: []string{"x"}}, {AllowAll: true, DenyURIs: []string{"spiffe://two.test/**"}},
		{Rego: Rego{Path: "p.rego", Query: "data.a"}}} {
		d := compiled(t, c).Decide(t.Context(), Request{Own: web, Peer: foreign})
		if d.Allowed || !strings.Contains(d.Reason, foreign.String()) {
			t.Errorf("%+v", d)
		}
	}
}

// An empty name does not admit every certificate without one.
func TestGap11EmptyNameIsRefused(t *testing.T) {
	for _, c := range []Config{{AllowCNs: []string{""}}, {AllowOUs: []string{"a", ""}}, {AllowDNSNames: []string{""}}, {AllowURIs: []string{""}}, {AllowIPs: []string{""}},
		{AllowTrustDomains: []string{""}}, {AllowAll: true, DenyURIs: []string{""}}} {
		if _, err := Compile(c, Deps{Name: flags}); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	_, err := Compile(Config{AllowCNs: []string{""}}, Deps{Name: flags})
	want := `allow_cns "": an empty name would admit every certificate that has no CN, so every ordinary SVID: give the name expected, or --allow-all`
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
