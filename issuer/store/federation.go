package store

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

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

// SetFederatedBundle stores the bundle of another trust domain, with the
// sequence number that it has. The error wraps ErrExists or ErrNotFound, as the
// mode says, or ErrTooLarge.
func (s *Store) SetFederatedBundle(ctx context.Context, b *types.Bundle, mode Mode) (Revision, error) {
	td, err := s.foreign(b.GetTrustDomain())
	if err != nil {
		return 0, err
	}
	_, rev, err := changeRecord(ctx, s, federatedRecords, td, mode, func(*types.Bundle) (*types.Bundle, error) { return b, nil })
	return rev, err
}

// UpdateFederatedBundle replaces the bundle of another trust domain by what
// change makes of it. change must be free of other effects; its error is
// returned as it is. The error wraps ErrNotFound where no bundle is there.
func (s *Store) UpdateFederatedBundle(ctx context.Context, td spiffeid.TrustDomain, change func(*types.Bundle) error) (*types.Bundle, Revision, error) {
	if _, err := s.foreign(td.Name()); err != nil {
		return nil, 0, err
	}
	return changeRecord(ctx, s, federatedRecords, td, ModeUpdate, func(b *types.Bundle) (*types.Bundle, error) {
		err := change(b)
		b.TrustDomain = td.Name()
		return b, err
	})
}

// PutRelationship stores the relationship. A bundle in it replaces that of its
// trust domain, in the same transaction; without one that stays as it is. The
// error wraps ErrExists or ErrNotFound, as the mode says, or ErrTooLarge.
func (s *Store) PutRelationship(ctx context.Context, r *types.FederationRelationship, mode Mode) (Revision, error) {
	td, err := s.foreign(r.GetTrustDomain())
	if err != nil {
		return 0, err
	}
	_, rev, err := changeRecord(ctx, s, relationshipRecords, td, mode, func(*types.FederationRelationship) (*types.FederationRelationship, error) { return r, nil })
	return rev, err
}

// UpdateRelationship replaces the relationship by what change makes of it, which
// it is given without a bundle; one that change adds is stored as by
// PutRelationship. change must be free of other effects; its error is returned
// as it is. The error wraps ErrNotFound where there is no relationship.
func (s *Store) UpdateRelationship(ctx context.Context, td spiffeid.TrustDomain, change func(*types.FederationRelationship) error) (*types.FederationRelationship, Revision, error) {
	if _, err := s.foreign(td.Name()); err != nil {
		return nil, 0, err
	}
	return changeRecord(ctx, s, relationshipRecords, td, ModeUpdate, func(r *types.FederationRelationship) (*types.FederationRelationship, error) {
		err := change(r)
		r.TrustDomain = td.Name()
		return r, err
	})
}

// DeleteRelationship deletes the relationship with the trust domain; the error
// wraps ErrNotFound where there is none. The bundle of the trust domain stays.
func (s *Store) DeleteRelationship(ctx context.Context, td spiffeid.TrustDomain) (Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	key := relationshipDir + td.Name()
	resp, err := s.client.Delete(ctx, key)
	switch {
	case err != nil:
		return 0, s.fault("delete federation relationship", err)
	case resp.Deleted == 0:
		return 0, fmt.Errorf("federation relationship with %s: %w", td.Name(), ErrNotFound)
	}
	return Revision(resp.Header.Revision), nil
}

// foreign reads the name of a trust domain that is not the store's own.
func (s *Store) foreign(name string) (spiffeid.TrustDomain, error) {
	td, err := spiffeid.TrustDomainFromString(name)
	switch {
	case err != nil:
		return td, fmt.Errorf("store: trust domain %q: %w", name, err)
	case td == s.cfg.TrustDomain || td.Name() != name:
		return td, fmt.Errorf("store: %q is not the name of another trust domain", name)
	}
	return td, nil
}

// recordKind is a kind of record of which each foreign trust domain has one.
type recordKind[M proto.Message] struct {
	what   string
	dir    string
	decode func(td spiffeid.TrustDomain, data []byte) (M, error)
	// write adds to the transaction what storing m takes.
	write func(t *txn, td spiffeid.TrustDomain, m M) error
}

// These are constants in all but the language.
var (
	federatedRecords = recordKind[*types.Bundle]{
		what: "federated bundle", dir: federatedDir, decode: decodeBundle, write: (*txn).putFederated,
	}
	relationshipRecords = recordKind[*types.FederationRelationship]{
		what: "federation relationship", dir: relationshipDir, decode: decodeRelationship, write: (*txn).putRelationship,
	}
)

func (t *txn) putFederated(td spiffeid.TrustDomain, b *types.Bundle) error {
	data, err := encodeBounded("federated bundle "+td.Name(), b)
	if err == nil {
		t.put(federatedDir+td.Name(), data)
	}
	return err
}

func (t *txn) putRelationship(td spiffeid.TrustDomain, r *types.FederationRelationship) error {
	if b := r.TrustDomainBundle; b != nil {
		if b.TrustDomain != td.Name() {
			return fmt.Errorf("store: the relationship with %s has a bundle of %q", td.Name(), b.TrustDomain)
		}
		if err := t.putFederated(td, b); err != nil {
			return err
		}
		r = proto.Clone(r).(*types.FederationRelationship)
		r.TrustDomainBundle = nil
	}
	data, err := encodeBounded("federation relationship "+td.Name(), r)
	if err == nil {
		t.put(relationshipDir+td.Name(), data)
	}
	return err
}

// changeRecord stores what change makes of the record there is; the zero M if
// there is none, which mode may not allow.
func changeRecord[M proto.Message](ctx context.Context, s *Store, kind recordKind[M], td spiffeid.TrustDomain, mode Mode, change func(M) (M, error)) (none M, _ Revision, _ error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return none, 0, err
	}
	defer end()
	key := kind.dir + td.Name()
	for range maxAttempts {
		kvs, err := s.read(ctx, key)
		if err != nil {
			return none, 0, s.fault("store "+kind.what, err)
		}
		var old M
		switch {
		case kvs[0] == nil && mode == ModeUpdate:
			return none, 0, fmt.Errorf("%s %s: %w", kind.what, td.Name(), ErrNotFound)
		case kvs[0] != nil && mode == ModeCreate:
			return none, 0, fmt.Errorf("%s %s: %w", kind.what, td.Name(), ErrExists)
		case kvs[0] != nil && mode == ModeUpdate:
			if old, err = kind.decode(td, kvs[0].Value); err != nil {
				return none, 0, err
			}
		}
		m, err := change(old)
		if err != nil {
			return none, 0, err
		}
		var t txn
		t.unchanged(key, modRevision(kvs[0]))
		if err := kind.write(&t, td, m); err != nil {
			return none, 0, err
		}
		resp, err := t.commit(ctx, s)
		switch {
		case err != nil:
			return none, 0, s.fault("store "+kind.what, err)
		case resp.Succeeded:
			return m, Revision(resp.Header.Revision), nil
		}
	}
	return none, 0, fmt.Errorf("%s %s: %w", kind.what, td.Name(), ErrConflict)
}
