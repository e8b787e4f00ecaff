package upstream

import (
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Own is the agent's own identity, as of now: for what it serves over TLS itself
// (internal/mtls.Source).
type Own struct{ c *Client }

// Own returns the agent's own identity.
func (c *Client) Own() Own { return Own{c} }

// SVID returns the agent's SVID; an error until it has joined.
func (o Own) SVID() (*x509svid.SVID, error) {
	svid, _ := o.c.id.current()
	if svid == nil {
		return nil, errors.New("the agent has not joined yet")
	}
	return svid, nil
}

// Bundle returns that of the agent's own trust domain, the only one it has here.
func (o Own) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	_, bundle := o.c.id.current()
	if bundle == nil || td != o.c.cfg.TrustDomain {
		return nil, fmt.Errorf("no bundle of trust domain %q", td.Name())
	}
	return bundle, nil
}
