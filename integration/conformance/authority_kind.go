package conformance

import (
	"crypto/x509"
	"encoding/hex"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	la "github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// authorityKind is the calls on one kind of authority, with X.509 and JWT made alike.
type authorityKind struct {
	prepare                 func() (*la.AuthorityState, error)
	activate, taint, revoke func(id string) (*la.AuthorityState, error)
	state                   func() (active, prepared, old *la.AuthorityState)
	bundled                 func(id string) (there, tainted bool)
}

func (c *C) x509Kind() authorityKind {
	client := la.NewLocalAuthorityClient(c.conn)
	return authorityKind{
		prepare: func() (*la.AuthorityState, error) {
			r, err := client.PrepareX509Authority(c.ctx, &la.PrepareX509AuthorityRequest{})
			return r.GetPreparedAuthority(), err
		},
		activate: func(id string) (*la.AuthorityState, error) {
			r, err := client.ActivateX509Authority(c.ctx, &la.ActivateX509AuthorityRequest{AuthorityId: id})
			return r.GetActivatedAuthority(), err
		},
		taint: func(id string) (*la.AuthorityState, error) {
			r, err := client.TaintX509Authority(c.ctx, &la.TaintX509AuthorityRequest{AuthorityId: id})
			return r.GetTaintedAuthority(), err
		},
		revoke: func(id string) (*la.AuthorityState, error) {
			r, err := client.RevokeX509Authority(c.ctx, &la.RevokeX509AuthorityRequest{AuthorityId: id})
			return r.GetRevokedAuthority(), err
		},
		state: func() (active, prepared, old *la.AuthorityState) {
			r, err := client.GetX509AuthorityState(c.ctx, &la.GetX509AuthorityStateRequest{})
			c.must(err)
			return r.Active, r.Prepared, r.Old
		},
		bundled: func(id string) (there, tainted bool) {
			for _, a := range c.rawBundle().X509Authorities {
				cert, err := x509.ParseCertificate(a.Asn1)
				c.must(err)
				if hex.EncodeToString(cert.SubjectKeyId) == id {
					return true, a.Tainted
				}
			}
			return false, false
		},
	}
}

func (c *C) jwtKind() authorityKind {
	client := la.NewLocalAuthorityClient(c.conn)
	return authorityKind{
		prepare: func() (*la.AuthorityState, error) {
			r, err := client.PrepareJWTAuthority(c.ctx, &la.PrepareJWTAuthorityRequest{})
			return r.GetPreparedAuthority(), err
		},
		activate: func(id string) (*la.AuthorityState, error) {
			r, err := client.ActivateJWTAuthority(c.ctx, &la.ActivateJWTAuthorityRequest{AuthorityId: id})
			return r.GetActivatedAuthority(), err
		},
		taint: func(id string) (*la.AuthorityState, error) {
			r, err := client.TaintJWTAuthority(c.ctx, &la.TaintJWTAuthorityRequest{AuthorityId: id})
			return r.GetTaintedAuthority(), err
		},
		revoke: func(id string) (*la.AuthorityState, error) {
			r, err := client.RevokeJWTAuthority(c.ctx, &la.RevokeJWTAuthorityRequest{AuthorityId: id})
			return r.GetRevokedAuthority(), err
		},
		state: func() (active, prepared, old *la.AuthorityState) {
			r, err := client.GetJWTAuthorityState(c.ctx, &la.GetJWTAuthorityStateRequest{})
			c.must(err)
			return r.Active, r.Prepared, r.Old
		},
		bundled: func(id string) (there, tainted bool) {
			for _, key := range c.rawBundle().JwtAuthorities {
				if key.KeyId == id {
					return true, key.Tainted
				}
			}
			return false, false
		},
	}
}

func (c *C) rawBundle() *types.Bundle {
	c.Helper()
	b, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
	return b
}
