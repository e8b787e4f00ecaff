package policy

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// FuzzDecide holds decisions to what must be so of any policy: a deny is never beaten, more rules that allow never take
// away, more that deny never give, and a pattern that names no trust domain reaches no other's.
func FuzzDecide(f *testing.F) {
	f.Add("one.test/ns/web", "two.test", "spiffe://one.test/**\nspiffe://*/ns/*", "spiffe://one.test/ns/db", true, uint8(0))
	f.Add("two.test/ns/web", "one.test", "**", "", false, uint8(1))
	f.Add("two.test/ns/web", "one.test", "spiffe://**", "**", true, uint8(3))
	f.Add("a/b", "a", "spiffe://a/b/", "spiffe://a/*\nspiffe://*/b", false, uint8(255))
	f.Fuzz(func(t *testing.T, peer, own, allow, deny string, wide bool, kinds uint8) {
		id, err := spiffeid.FromString("spiffe://" + peer)
		if err != nil || id.Path() == "" {
			return
		}
		ownID, err := spiffeid.FromString("spiffe://" + own)
		if err != nil {
			return
		}
		c := Config{AllowURIs: lines(allow), DenyURIs: lines(deny), Wide: wide, OwnTrustDomain: kinds&1 != 0, AllowAll: kinds == 2}
		if kinds&4 != 0 {
			c.AllowCNs = []string{"web"}
		}
		if kinds&8 != 0 {
			c.AllowTrustDomains = []string{ownID.TrustDomain().Name()}
		}
		p, err := Compile(c, Deps{})
		if err != nil {
			explained(t, err)
			return
		}
		r := Request{Own: ownID, Peer: id, Certificate: &x509.Certificate{URIs: []*url.URL{id.URL()}, Subject: pkix.Name{CommonName: "web"}}}
		got := p.Decide(t.Context(), r)
		if got.Allowed == (got.Reason != "") || strings.Contains(got.Reason, "\n") {
			t.Fatalf("%+v", got)
		}
		denied := false
		for _, s := range c.DenyURIs {
			denied = denied || utf8.ValidString(s) && reference(t, s).MatchString(id.String())
		}
		if denied && got.Allowed {
			t.Fatalf("%+v although one of %q denies %s", got, c.DenyURIs, id)
		}
		if text := Explain(t.Context(), p, r); strings.Contains(text, "allowed by ") != got.Allowed {
			t.Fatalf("decision %+v, explained as\n%s", got, text)
		}
		monotonic(t, c, r, got)
		if c.Wide || !got.Allowed || id.MemberOf(ownID.TrustDomain()) || c.AllowAll {
			return
		}
		for _, s := range c.AllowURIs {
			if strings.HasPrefix(s, "spiffe://"+id.TrustDomain().Name()) {
				return
			}
		}
		t.Fatalf("%q let %s in, of another trust domain than %s: %+v", c.AllowURIs, id, ownID, got)
	})
}

// monotonic adds rules of either kind to c and compares with what it decided before.
func monotonic(t *testing.T, c Config, r Request, before Decision) {
	t.Helper()
	for _, extra := range []string{r.Peer.String(), "spiffe://" + r.Peer.TrustDomain().Name() + "/**", "spiffe://nobody.test/x"} {
		if !c.AllowAll {
			more := c
			more.AllowURIs = append(c.AllowURIs[:len(c.AllowURIs):len(c.AllowURIs)], extra)
			if p, err := Compile(more, Deps{}); err != nil || before.Allowed && !p.Decide(t.Context(), r).Allowed {
				t.Fatalf("allowing %s too took away what %+v gave: %v", extra, before, err)
			}
		}
		less := c
		less.DenyURIs = append(c.DenyURIs[:len(c.DenyURIs):len(c.DenyURIs)], extra)
		p, err := Compile(less, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(t.Context(), r); d.Allowed && (!before.Allowed || extra != "spiffe://nobody.test/x") {
			t.Fatalf("denying %s too gave %+v, before %+v", extra, d, before)
		}
	}
}

// explained fails the test if an error isn't one of a setting, in one line.
func explained(t *testing.T, err error) {
	t.Helper()
	for _, err := range setting.All(err) {
		if e, ok := err.(*setting.Error); !ok || e.Key == "" || strings.Contains(err.Error(), "\n") || len(err.Error()) > 4000 {
			t.Fatalf("%T: %q", err, err)
		}
	}
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// FuzzConfig compiles any text as any setting: what is wrong is told in one line by its key, and what is taken decides.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{"", "web", "*.test", "192.0.2.1", "::ffff:1.2.3.4", "fe80::1%eth0", "one.test", "spiffe://one.test", "spiffe://*/x/**", "sha256:" + someDigest, "sha512:x", "\xff\n"} {
		f.Add(s, "one.test/web")
	}
	cert := leaf(f, x509.Certificate{Subject: pkix.Name{CommonName: "web"}})
	f.Fuzz(func(t *testing.T, s, peer string) {
		id, _ := spiffeid.FromString("spiffe://" + peer)
		v := []string{s}
		for _, c := range []Config{{AllowCNs: v}, {AllowOUs: v}, {AllowDNSNames: v}, {AllowIPs: v}, {AllowTrustDomains: v}, {AllowURIs: v}, {AllowURIs: v, Wide: true},
			{AllowAll: true, DenyURIs: v}, {Pins: v}, {Direction: s}, {Rego: Rego{Path: s}}, {Rego: Rego{Query: s}}} {
			p, err := Compile(c, Deps{})
			if (err == nil) != (c.Validate() == nil) {
				t.Fatalf("%+v: Compile %v, Validate %v", c, err, c.Validate())
			}
			if err != nil {
				explained(t, err)
				continue
			}
			for _, r := range []Request{{Own: web, Peer: id}, {Own: web, Peer: id, Certificate: cert}, {Certificate: cert}, {}} {
				if d := p.Decide(t.Context(), r); d.Allowed == (d.Reason != "") || strings.Contains(d.Reason, "\n") || r == (Request{}) && d.Allowed {
					t.Fatalf("%+v: %+v: %+v", c, r, d)
				}
				Explain(t.Context(), p, r)
			}
		}
	})
}

// FuzzCertificate decides about, and explains, whatever crypto/x509 takes for a certificate.
func FuzzCertificate(f *testing.F) {
	f.Add(leaf(f, x509.Certificate{Subject: pkix.Name{CommonName: "web", OrganizationalUnit: []string{"a"}}, DNSNames: []string{"x"}, URIs: uris(f, "spiffe://a/b")}).Raw)
	f.Add(leaf(f, x509.Certificate{}).Raw)
	all := Config{AllowCNs: []string{"a"}, AllowOUs: []string{"b"}, AllowDNSNames: []string{"b"}, AllowIPs: []string{"::1"}, AllowURIs: []string{"spiffe://*/b"},
		AllowTrustDomains: []string{"b"}, OwnTrustDomain: true, DenyURIs: []string{"spiffe://*/x"}, Rego: Rego{Path: "p", Query: "q"}}
	no := func(Rego) (Engine, error) {
		return engineFunc(func(context.Context, Request) (bool, error) { return false, nil }), nil
	}
	p, err := Compile(all, Deps{Rego: no})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		r := Request{Certificate: cert}
		if d := p.Decide(t.Context(), r); !d.Allowed && (strings.Contains(d.Reason, "\n") || len(d.Reason) > 4000) {
			t.Fatalf("%q", d.Reason)
		}
		Explain(t.Context(), p, r)
	})
}

// What nearest compares: a pattern agrees with all of what it matches, and with no more than there is.
func FuzzAgrees(f *testing.F) {
	f.Add("spiffe://td/*/b", "spiffe://td/a/c")
	f.Add("a/**", "a")
	f.Add("*", "a/")
	f.Fuzz(func(t *testing.T, text, uri string) {
		p, err := parsePattern(text)
		if err != nil {
			return
		}
		at := p.agrees(uri)
		if at < 0 || at > len(uri) || p.matches(uri) && at < len(strings.TrimSuffix(uri, "/")) {
			t.Fatalf("pattern %q agrees with %d bytes of %q", text, at, uri)
		}
	})
}
