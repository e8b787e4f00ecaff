package store

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Mode says what a write expects to find.
type Mode int

// The modes of a write.
const (
	// ModeCreate fails with ErrExists where a record is there already.
	ModeCreate Mode = iota + 1
	// ModeUpdate fails with ErrNotFound where none is there.
	ModeUpdate
	// ModeSet creates or replaces.
	ModeSet
)

// DeleteMode says what becomes of the entries that federate with a trust domain
// whose bundle is deleted.
type DeleteMode int

// The modes of [Store.DeleteFederatedBundle].
const (
	// DeleteRestrict fails with ErrInUse where there is such an entry.
	DeleteRestrict DeleteMode = iota
	// DeleteWithEntries deletes them too.
	DeleteWithEntries
	// DeleteDissociate takes the trust domain off them.
	DeleteDissociate
)

// SetFederatedBundle stores the bundle of another trust domain, with the
// sequence number that it has. The error wraps ErrExists or ErrNotFound, as the
// mode says.
func (s *Store) SetFederatedBundle(ctx context.Context, b *types.Bundle, mode Mode) (Revision, error) {
	panic("later")
}

// DeleteFederatedBundle deletes the bundle of another trust domain. The error
// wraps ErrNotFound, or ErrInUse.
func (s *Store) DeleteFederatedBundle(ctx context.Context, td spiffeid.TrustDomain, mode DeleteMode) (Revision, error) {
	panic("later")
}

// PutRelationship stores the relationship, without its bundle. The error wraps
// ErrExists or ErrNotFound, as the mode says.
func (s *Store) PutRelationship(ctx context.Context, r *types.FederationRelationship, mode Mode) (Revision, error) {
	panic("later")
}

// DeleteRelationship deletes the relationship with the trust domain; the error
// wraps ErrNotFound where there is none. Its bundle stays.
func (s *Store) DeleteRelationship(ctx context.Context, td spiffeid.TrustDomain) (Revision, error) {
	panic("later")
}
