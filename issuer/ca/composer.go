package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// Role is whose certificate is composed.
type Role int

// The roles of certificates.
const (
	RoleAuthority  Role = iota // our own authority
	RoleDownstream             // the authority of an issuer below us
	RoleServer                 // the issuer's own SVID
	RoleAgent
	RoleWorkload
)

// Composer changes what a certificate or token will hold before it is signed.
// Of a template it may change Subject, DNSNames (of SVIDs) and ExtraExtensions,
// of claims all but sub, aud, iat and exp: what else it changes is of no effect.
// It is called for each SVID, from many goroutines; an error refuses the SVID.
type Composer interface {
	ComposeX509(ctx context.Context, role Role, id spiffeid.ID, template *x509.Certificate) error
	ComposeJWT(ctx context.Context, id spiffeid.ID, claims map[string]any) error
}

// composeX509 lets the composers change template.
func (a *Authority) composeX509(ctx context.Context, role Role, id spiffeid.ID, template *x509.Certificate) error {
	if len(a.cfg.Composers) == 0 {
		return nil
	}
	composed := *template
	for _, c := range a.cfg.Composers {
		if err := c.ComposeX509(ctx, role, id, &composed); err != nil {
			return fmt.Errorf("%w: composer: %w", ErrParams, err)
		}
	}
	template.Subject, template.ExtraExtensions = composed.Subject, composed.ExtraExtensions
	if ext := slices.IndexFunc(template.ExtraExtensions, reserved); ext >= 0 {
		return fmt.Errorf("%w: composer: extension %s is the issuer's to make", ErrParams, template.ExtraExtensions[ext].Id)
	}
	if role == RoleAuthority || role == RoleDownstream {
		return nil
	}
	template.DNSNames = composed.DNSNames
	for _, name := range template.DNSNames {
		if err := registration.ValidateDNSName(name); err != nil {
			return fmt.Errorf("%w: composer: DNS name %q: %w", ErrParams, name, err)
		}
	}
	return nil
}

// reserved reports whether an extension would say otherwise than the profile.
func reserved(e pkix.Extension) bool {
	for _, oid := range []asn1.ObjectIdentifier{
		oidSubjectKeyID, oidKeyUsage, oidSubjectAltName, oidBasicConstraints, oidAuthorityKeyID, oidExtKeyUsage,
	} {
		if e.Id.Equal(oid) {
			return true
		}
	}
	return false
}

// UniqueID returns SPIRE's "uniqueid": the subject of each workload's SVID gets
// an x500UniqueIdentifier (X.520, section 6.2.7) made from its SPIFFE ID, so
// that an authority gives no two of them the same subject (RFC 5280, section
// 4.1.2.6).
func UniqueID() Composer { return uniqueID{} }

type uniqueID struct{}

// ComposeX509 implements [Composer]: the first half of the SHA-256 of the ID, in
// hex.
func (uniqueID) ComposeX509(_ context.Context, role Role, id spiffeid.ID, template *x509.Certificate) error {
	if role != RoleWorkload {
		return nil
	}
	sum := sha256.Sum256([]byte(id.String()))
	attribute := pkix.AttributeTypeAndValue{
		Type:  asn1.ObjectIdentifier{2, 5, 4, 45},
		Value: hex.EncodeToString(sum[:len(sum)/2]),
	}
	names := slices.Clone(template.Subject.ExtraNames)
	same := func(n pkix.AttributeTypeAndValue) bool { return n.Type.Equal(attribute.Type) }
	template.Subject.ExtraNames = append(slices.DeleteFunc(names, same), attribute)
	return nil
}

// ComposeJWT implements [Composer].
func (uniqueID) ComposeJWT(context.Context, spiffeid.ID, map[string]any) error { return nil }
