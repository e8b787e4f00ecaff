package policy

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// rule is one rule of a policy.
type rule interface {
	// String is the rule in the user's words.
	String() string
	matches(*peer) bool
	// near says how close a rule that does not match came: the more, the nearer.
	near(*peer) int
	// miss says why a rule that does not match doesn't.
	miss(*peer) string
}

// text is a rule in the user's words: the setting and its value.
type text string

func (t text) String() string { return string(t) }

// confined, if it is true, keeps a rule that names no trust domain to the own one: what else a certificate says, the authorities
// of each trust domain write as they like. Certificates that are no SVIDs have no trust domain, and are not concerned.
type confined bool

// inside reports whether the rule may match the peer, as far as trust domains go.
func (c confined) inside(p *peer) bool {
	own := p.Own.TrustDomain()
	return !bool(c) || p.Peer.IsZero() || !own.IsZero() && p.Peer.MemberOf(own)
}

// outside is why a rule that may not match the peer is kept to the own trust domain.
func outside(p *peer) string {
	own := p.Own.TrustDomain()
	if own.IsZero() {
		return "it names no trust domain, and this end has none"
	}
	return "it names no trust domain, so it means the own one, " + own.Name()
}

// name is a rule on names in the certificate that are compared byte by byte.
type name struct {
	text
	confined
	what  string // as in "the certificate's CN is ..."
	value string
	of    func(*x509.Certificate) []string
}

func (n name) matches(p *peer) bool {
	return p.Certificate != nil && n.inside(p) && slices.Contains(n.of(p.Certificate), n.value)
}

func (n name) near(p *peer) int {
	best := 0
	if p.Certificate != nil {
		for _, got := range n.of(p.Certificate) {
			best = max(best, common(n.value, got))
		}
	}
	return best
}

func (n name) miss(p *peer) string {
	switch {
	case !n.inside(p):
		return outside(p)
	case !p.named():
		return "there is no certificate to look for a " + n.what + " in"
	}
	return has(n.what, n.of(p.Certificate))
}

// shown is how many names of a certificate go into a message.
const shown = 4

// has says which names of a kind a certificate has.
func has(what string, names []string) string {
	names = slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == "" })
	if len(names) == 0 {
		return "the certificate has no " + what
	}
	var quoted []string
	for _, s := range names[:min(len(names), shown)] {
		quoted = append(quoted, quote(s))
	}
	more := ""
	if n := len(names) - len(quoted); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("the certificate's %s is %s%s", what, strings.Join(quoted, ", "), more)
}

func commonName(c *x509.Certificate) []string { return []string{c.Subject.CommonName} }
func units(c *x509.Certificate) []string      { return c.Subject.OrganizationalUnit }
func dnsNames(c *x509.Certificate) []string   { return c.DNSNames }

// address is a rule on the certificate's IP names.
type address struct {
	text
	confined
	value netip.Addr
}

func (a address) matches(p *peer) bool {
	return p.Certificate != nil && a.inside(p) && slices.Contains(addresses(p.Certificate), a.value)
}

func (a address) near(*peer) int { return 0 }

func (a address) miss(p *peer) string {
	switch {
	case !a.inside(p):
		return outside(p)
	case !p.named():
		return "there is no certificate to look for an IP name in"
	}
	var names []string
	for _, got := range addresses(p.Certificate) {
		names = append(names, got.String())
	}
	return has("IP name", names)
}

// domain allows a trust domain.
type domain struct {
	text
	value spiffeid.TrustDomain // zero: this end's own
}

func (d domain) of(p *peer) spiffeid.TrustDomain {
	if d.value.IsZero() {
		return p.Own.TrustDomain()
	}
	return d.value
}

func (d domain) matches(p *peer) bool {
	td := d.of(p)
	return !td.IsZero() && p.Peer.MemberOf(td)
}

func (d domain) near(p *peer) int { return common(d.of(p).Name(), p.Peer.TrustDomain().Name()) }

func (d domain) miss(p *peer) string {
	switch td := d.of(p); {
	case p.Peer.IsZero():
		return "the peer has no SPIFFE ID"
	case td.IsZero():
		return "this end has no SPIFFE ID, so no trust domain of its own"
	default:
		return fmt.Sprintf("the peer is of %s, not of %s", p.Peer.TrustDomain(), td)
	}
}
