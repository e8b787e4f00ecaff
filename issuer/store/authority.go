package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// CAState is what an authority of this issuer and the trust domain's bundle
// must agree on.
type CAState struct {
	// Bundle is never nil; a new one has only its trust domain. Its sequence
	// number is the store's to count.
	Bundle *types.Bundle
	// Authorities are this issuer's, oldest first.
	Authorities []*storepb.X509Authority
	// JWTAuthorities are this issuer's, oldest first.
	JWTAuthorities []*storepb.JWTAuthority
	// Revoked are authorities that must not come back into the bundle.
	Revoked []*storepb.RevokedAuthority
}

// UpdateCA replaces the bundle, this issuer's authorities and the list of those
// revoked by what change makes of them, in one transaction; nothing is written if it makes no
// difference. The bundle's sequence number grows by one when its set of
// authorities of any kind, taints included, is another than before. change
// must be free of other effects: it runs again when others change the bundle
// meanwhile. Its error is returned as it is.
func (s *Store) UpdateCA(ctx context.Context, change func(*CAState) error) (Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	for range maxAttempts {
		rev, err := s.updateCA(ctx, change)
		if !errors.Is(err, ErrConflict) {
			return rev, err
		}
	}
	return 0, fmt.Errorf("bundle: %w", ErrConflict)
}

// updateCA tries once. The bundle's revision guards the rest too: every change
// to any of it writes the bundle.
func (s *Store) updateCA(ctx context.Context, change func(*CAState) error) (Revision, error) {
	bundleKV, old, err := s.readCA(ctx)
	if err != nil {
		return 0, err
	}
	state := old.clone()
	if err := change(&state); err != nil {
		return 0, err
	}
	state.Bundle.TrustDomain = old.Bundle.TrustDomain
	state.Bundle.SequenceNumber = old.Bundle.SequenceNumber
	if !sameAuthorities(old.Bundle, state.Bundle) {
		state.Bundle.SequenceNumber++
	}
	var t txn
	if err := errors.Join(
		putRecords(&t, authorityDir, old.Authorities, state.Authorities, (*storepb.X509Authority).GetAuthorityId),
		putRecords(&t, jwtAuthorityDir, old.JWTAuthorities, state.JWTAuthorities, (*storepb.JWTAuthority).GetAuthorityId),
		putRecords(&t, revokedDir, old.Revoked, state.Revoked, revokedName),
	); err != nil {
		return 0, err
	}
	if len(t.then) == 0 && proto.Equal(old.Bundle, state.Bundle) {
		return Revision(modRevision(bundleKV)), nil
	}
	data, err := encode(state.Bundle)
	if err != nil {
		return 0, err
	}
	t.unchanged(bundleKey, modRevision(bundleKV))
	t.put(bundleKey, data)
	done, err := t.commit(ctx, s)
	switch {
	case err != nil:
		return 0, s.fault("update bundle", err)
	case !done.Succeeded:
		return 0, ErrConflict
	}
	return Revision(done.Header.Revision), nil
}

// caState reads the records; bundle is nil in a new store.
func (s *Store) caState(bundle *mvccpb.KeyValue, authorities []*mvccpb.KeyValue) (CAState, error) {
	state := CAState{Bundle: &types.Bundle{TrustDomain: s.cfg.TrustDomain.Name()}}
	if bundle != nil {
		var err error
		if state.Bundle, err = decodeBundle(s.cfg.TrustDomain, bundle.Value); err != nil {
			return CAState{}, s.unreadable(err)
		}
	}
	for _, kv := range authorities {
		a, err := decodeAuthority(string(kv.Key[len(authorityDir):]), kv.Value)
		if err != nil {
			return CAState{}, s.unreadable(err)
		}
		state.Authorities = append(state.Authorities, a)
	}
	SortAuthorities(state.Authorities)
	return state, nil
}

func (s *Store) unreadable(err error) error {
	return fmt.Errorf("store: %w: restore %s from a backup", err, s.cfg.Dir)
}

// SortAuthorities puts the oldest first.
func SortAuthorities(as []*storepb.X509Authority) {
	slices.SortFunc(as, func(a, b *storepb.X509Authority) int {
		return cmp.Or(cmp.Compare(a.IssuedAt, b.IssuedAt), cmp.Compare(a.AuthorityId, b.AuthorityId))
	})
}

func (c CAState) clone() CAState {
	return CAState{
		Bundle:         proto.Clone(c.Bundle).(*types.Bundle),
		Authorities:    cloneAll(c.Authorities),
		JWTAuthorities: cloneAll(c.JWTAuthorities),
		Revoked:        cloneAll(c.Revoked),
	}
}

// sameAuthorities compares the bundles as sets of authorities.
func sameAuthorities(a, b *types.Bundle) bool {
	return sameSet(a.X509Authorities, b.X509Authorities) &&
		sameSet(a.JwtAuthorities, b.JwtAuthorities) &&
		sameSet(a.WitAuthorities, b.WitAuthorities)
}

// sameSet is as quick with the thousand keys that a bundle may have as with one.
func sameSet[M proto.Message](a, b []M) bool {
	if len(a) != len(b) {
		return false
	}
	in := func(list []M) map[string]bool {
		set := make(map[string]bool, len(list))
		for _, one := range list {
			// Of equal messages the same bytes; what cannot be marshalled cannot be stored.
			data, err := proto.MarshalOptions{Deterministic: true}.Marshal(one)
			if err == nil {
				set[string(data)] = true
			}
		}
		return set
	}
	return maps.Equal(in(a), in(b))
}
