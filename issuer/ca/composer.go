package ca

import (
	"context"
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Role is whose certificate is composed.
type Role int

// The roles of certificates.
const (
	RoleAuthority Role = iota // our own authority
	RoleServer                // the issuer's own SVID
	RoleAgent
	RoleWorkload
)

// Composer changes what a certificate or token will hold before it is signed.
// What it makes of the ID, the key, the validity beyond the authority's, or of
// what the SPIFFE standards demand is refused. It is called for each SVID, from
// many goroutines.
type Composer interface {
	ComposeX509(ctx context.Context, role Role, id spiffeid.ID, template *x509.Certificate) error
	ComposeJWT(ctx context.Context, id spiffeid.ID, claims map[string]any) error
}

// UniqueID returns SPIRE's "uniqueid": the subject of each workload's SVID gets
// an x500UniqueIdentifier made from its SPIFFE ID.
func UniqueID() Composer { return uniqueID{} }

type uniqueID struct{}

func (uniqueID) ComposeX509(context.Context, Role, spiffeid.ID, *x509.Certificate) error {
	return errSkeleton
}
func (uniqueID) ComposeJWT(context.Context, spiffeid.ID, map[string]any) error { return nil }
