package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// possible returns an error if p is certainly not what its writer meant, as no URI can match it, or no SPIFFE ID if it is
// of those. A mistake in a rule that allows shows when nobody is let in; one in a rule that denies never does.
func (p pattern) possible() error {
	if len(p.segments) == 0 || p.segments[0] == "*" {
		return nil // ** and */...: some URI
	}
	scheme, _, ok := strings.Cut(p.segments[0], ":")
	if !ok {
		return fmt.Errorf("matches no URI, as it has no scheme: write %s", printable("spiffe://"+strings.TrimLeft(p.text, "/")))
	}
	if scheme != "spiffe" {
		if strings.EqualFold(scheme, "spiffe") {
			return errors.New("matches no SPIFFE ID: their scheme is spiffe, in lower case")
		}
		return nil // a certificate that is no SVID has such names
	}
	return p.possibleID()
}

// possibleID is possible for what begins with spiffe:.
func (p pattern) possibleID() error {
	if p.segments[0] != "spiffe:" || len(p.segments) > 1 && p.segments[1] != "" || len(p.segments) <= trustDomainSegment && !p.open {
		return errors.New("matches no SPIFFE ID: write spiffe://TRUST-DOMAIN/PATH")
	}
	for i, seg := range p.segments {
		var err error
		switch {
		case i < trustDomainSegment || seg == "*":
		case i == trustDomainSegment:
			_, err = spiffeid.TrustDomainFromString(seg)
		default:
			err = spiffeid.ValidatePathSegment(seg)
		}
		if err != nil {
			return fmt.Errorf("matches no SPIFFE ID: %s: %w", quote(seg), err)
		}
	}
	return nil
}
