package policy

import (
	"crypto/x509"
	"net/netip"
	"strconv"
	"unicode/utf8"
)

// peer is a request as the rules see it.
type peer struct {
	Request
	uris []string // the verified SPIFFE ID alone, or every URI name of a certificate that is no SVID
	one  [1]string
	// assumed is true while explaining without a certificate: then only the SPIFFE ID is known.
	assumed bool
}

func newPeer(r Request) *peer {
	p := &peer{Request: r}
	switch {
	case !r.Peer.IsZero():
		p.one[0] = r.Peer.String()
		p.uris = p.one[:]
	case r.Certificate != nil:
		for _, u := range r.Certificate.URIs {
			if u != nil {
				p.uris = append(p.uris, u.String())
			}
		}
	}
	return p
}

// unknown reports whether the peer showed nothing to decide by.
func (p *peer) unknown() bool { return p.Peer.IsZero() && p.Certificate == nil }

// named reports whether the peer has a certificate with names in it.
func (p *peer) named() bool { return p.Certificate != nil && !p.assumed }

// String names the peer for people: by its SPIFFE ID, else by the first name there is in its certificate.
func (p *peer) String() string {
	switch c := p.Certificate; {
	case !p.Peer.IsZero():
		return p.Peer.String()
	case c == nil:
		return "a peer without a certificate"
	case len(p.uris) > 0:
		return "the peer with URI " + quote(p.uris[0])
	case c.Subject.CommonName != "":
		return "the peer with CN " + quote(c.Subject.CommonName)
	case len(c.DNSNames) > 0:
		return "the peer with DNS name " + quote(c.DNSNames[0])
	case len(c.Subject.OrganizationalUnit) > 0:
		return "the peer with OU " + quote(c.Subject.OrganizationalUnit[0])
	default:
		return "a peer whose certificate names nobody"
	}
}

// longest is how many bytes of a stranger's name go into a message.
const longest = 256

// quote makes a name from a certificate fit for one line.
func quote(s string) string {
	if len(s) <= longest {
		return strconv.Quote(s)
	}
	end := longest
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return strconv.Quote(s[:end]) + "..."
}

// addresses are the IP names of c.
func addresses(c *x509.Certificate) []netip.Addr {
	var out []netip.Addr
	for _, ip := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}
