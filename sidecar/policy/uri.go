package policy

import (
	"slices"
	"strings"
)

// uri is a rule on the SPIFFE ID, or on the URI names of a certificate that is no SVID.
type uri struct {
	text
	setting string // the user's word for it
	pattern pattern
	// confined keeps a pattern that names no trust domain to the own one, and from certificates that have none.
	confined bool
}

func (u uri) matches(p *peer) bool {
	return slices.ContainsFunc(p.uris, u.pattern.matches) && u.inside(p)
}

// inside reports whether the rule may match the peer, as far as trust domains go.
func (u uri) inside(p *peer) bool {
	if !u.confined || !u.pattern.wide() {
		return true
	}
	td := p.Peer.TrustDomain()
	return !td.IsZero() && td == p.Own.TrustDomain()
}

func (u uri) near(p *peer) int {
	at, _ := u.nearest(p)
	return at
}

// nearest returns which URI of the peer agrees most with the pattern, and for how many bytes after its scheme.
func (u uri) nearest(p *peer) (int, string) {
	best, which := -1, ""
	for _, s := range p.uris {
		if at := u.pattern.agrees(s); at > best {
			best, which = at, s[:at]
		}
	}
	const scheme = "spiffe://"
	if strings.HasPrefix(which, scheme) {
		best -= len(scheme)
	}
	return max(best, 0), which
}

func (u uri) miss(p *peer) string {
	if len(p.uris) == 0 {
		return "the certificate has no URI name"
	}
	if slices.ContainsFunc(p.uris, u.pattern.matches) {
		return u.outside(p)
	}
	at, which := u.nearest(p)
	if at == 0 {
		return "they have nothing in common"
	}
	return "they agree up to " + printable(which)
}

// outside is why a pattern that would match is confined.
func (u uri) outside(p *peer) string {
	if p.Peer.IsZero() {
		return "it names no trust domain, and the peer has none that was verified"
	}
	return outside(p)
}

// printable is s as it is if it is a plain URI, else quoted.
func printable(s string) string {
	if len(s) <= longest && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
		return s
	}
	return quote(s)
}
