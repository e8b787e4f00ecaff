package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// maxRecords is how many records of a kind the journal keeps, SPIRE's number.
// What is in the bundle stays there until it has expired.
const maxRecords = 10

// creation is what a new authority will be.
type creation struct {
	status storepb.X509Authority_Status
	eager  bool
}

// create makes an authority in the slot that nothing usable is in. The key is
// on disk before the record exists: after a crash in between, the record still
// names the older authorities, and the key is overwritten by the next try.
func (a *Authority) create(ctx context.Context, now time.Time, l *lane, c creation) error {
	keyType := a.cfg.KeyType
	if l.kind == kindJWT {
		keyType = a.cfg.JWTKeyType
	}
	if err := a.preserve(ctx, now); err != nil {
		return err
	}
	slot := freeSlot(now, l.kind, l.records)
	signer, err := a.cfg.Keys.Generate(ctx, slot, keyType)
	// From here on a record of that slot has no key any more.
	a.stale = true
	if err != nil {
		return fmt.Errorf("new key for %s authority: %w", l.kind, err)
	}
	r := &record{
		kind:   l.kind,
		slot:   slot,
		status: c.status,
		signer: signer,
		issued: now.Truncate(time.Second),
		eager:  c.eager,
	}
	var publish func(*store.CAState)
	if l.kind == kindJWT {
		publish, err = a.makeJWT(ctx, now, r)
	} else {
		publish, err = a.makeX509(ctx, now, r)
	}
	if err != nil {
		return err
	}
	err = a.update(ctx, func(s *store.CAState) error {
		retire(s, l.kind, slot, c.status, now)
		publish(s)
		return nil
	})
	if err != nil {
		return fmt.Errorf("record authority %s: %w", r.id, err)
	}
	verb := "prepared"
	if c.status == storepb.X509Authority_ACTIVE {
		verb = "activated"
	}
	a.cfg.Log.Info("authority "+verb, "kind", l.kind, "authority", r.id, "expires", r.notAfter,
		"upstream_authority", r.upstream, "next_prepared", r.prepareAt())
	return nil
}

// preserver is a [Keys] that can keep what is about to be overwritten.
type preserver interface {
	Preserve(ctx context.Context, now time.Time) (path string, err error)
}

// preserve keeps keys that were there before the first authority: the key file
// may be that of a SPIRE server whose configuration we were started with, and
// which someone will want to go back to.
func (a *Authority) preserve(ctx context.Context, now time.Time) error {
	keys, ok := a.cfg.Keys.(preserver)
	if !ok || len(a.x509.records)+len(a.jwt.records) > 0 {
		return nil
	}
	path, err := keys.Preserve(ctx, now)
	if err != nil {
		return fmt.Errorf("keep the keys that were there before: %w", err)
	}
	if path != "" {
		a.cfg.Log.Warn("there were keys of another issuer: a copy was made before the first one is replaced", "copy", path)
	}
	return nil
}

// makeX509 has r certified and returns what to write then.
func (a *Authority) makeX509(ctx context.Context, now time.Time, r *record) (func(*store.CAState), error) {
	template, err := caTemplate(a.cfg.TrustDomain, a.cfg.Subject, r.signer.Public(), now, a.cfg.TTL)
	if err != nil {
		return nil, err
	}
	if err := a.composeX509(ctx, RoleAuthority, a.cfg.TrustDomain.ID(), template); err != nil {
		return nil, err
	}
	certified, err := a.cfg.Parent.Certify(ctx, CertifyRequest{Template: template, Key: r.signer, TTL: a.cfg.TTL})
	if err != nil {
		return nil, fmt.Errorf("certify authority: %w", err)
	}
	root, err := a.validate(certified, r.signer, now)
	if err != nil {
		return nil, fmt.Errorf("certify authority: %w", err)
	}
	r.cert, r.chain, r.behind = certified.Chain[0], certified.Chain, presented(certified.Chain)
	r.id, r.notAfter = keyIDOf(r.cert), r.cert.NotAfter
	if len(r.behind) > 0 {
		r.upstream = keyIDOf(root)
	}
	if err := a.checkRoot(ctx, r, certified.Roots); err != nil {
		return nil, err
	}
	return func(s *store.CAState) {
		s.Authorities = dropOldest(s.Authorities)
		s.Authorities = append(s.Authorities, r.protoX509())
		s.Bundle = publishedRoots(s.Bundle, a.cfg.TrustDomain.Name(), certified.Roots, s.Revoked)
	}, nil
}

// checkRoot refuses an authority below a root that was revoked, and below one
// that is tainted unless nothing else can sign.
func (a *Authority) checkRoot(ctx context.Context, r *record, roots []Root) error {
	var bundle *types.Bundle
	_, err := a.cfg.Journal.UpdateCA(ctx, func(s *store.CAState) error {
		bundle = publishedRoots(proto.Clone(s.Bundle).(*types.Bundle), a.cfg.TrustDomain.Name(), roots, s.Revoked)
		return nil
	})
	if err != nil {
		return err
	}
	switch distrusted, tainted := distrustX509(r.chain, bundle); {
	case !distrusted:
		return nil
	case !tainted:
		return fmt.Errorf("upstream authority signs with root %s, which was revoked here: give it another one", r.upstream)
	case r.status != storepb.X509Authority_ACTIVE:
		return fmt.Errorf("upstream authority signs with root %s, which is tainted: give it another one", r.upstream)
	}
	a.cfg.Log.Error("the only upstream authority is tainted and signs all the same: give it another one", "upstream_authority", r.upstream)
	return nil
}

// makeJWT gives r a name and publishes it upstream, if there is one that takes
// it, and returns what to write then.
func (a *Authority) makeJWT(ctx context.Context, now time.Time, r *record) (func(*store.CAState), error) {
	r.id, r.notAfter = newKID(), now.Add(a.cfg.TTL).Truncate(time.Second)
	var err error
	if r.public, err = x509.MarshalPKIXPublicKey(r.signer.Public()); err != nil {
		return nil, err
	}
	key := &types.JWTKey{PublicKey: r.public, KeyId: r.id, ExpiresAt: r.notAfter.Unix()}
	keys, err := a.publishUpstream(ctx, key)
	if err != nil {
		return nil, err
	}
	return func(s *store.CAState) {
		s.JWTAuthorities = dropOldest(s.JWTAuthorities)
		s.JWTAuthorities = append(s.JWTAuthorities, r.protoJWT())
		publishJWT(s, keys)
	}, nil
}

// publishUpstream tells the parent of key, if there is one that takes it, and
// returns all keys to publish here, key among them.
func (a *Authority) publishUpstream(ctx context.Context, key *types.JWTKey) ([]*types.JWTKey, error) {
	publisher, ok := a.cfg.Parent.(JWTPublisher)
	if !ok {
		return []*types.JWTKey{key}, nil
	}
	upstream, err := publisher.PublishJWTKey(ctx, key)
	switch {
	case errors.Is(err, ErrNoJWTUpstream):
		a.cfg.Log.Warn("JWT-SVIDs of this issuer are known below it alone", "error", err)
	case err != nil:
		return nil, fmt.Errorf("publish JWT authority upstream: %w", err)
	}
	return append([]*types.JWTKey{key}, upstream...), nil
}

// publishJWT puts each of keys into the bundle once, but for those that were
// revoked.
func publishJWT(s *store.CAState, keys []*types.JWTKey) {
	for _, key := range keys {
		if key.GetKeyId() == "" || isRevoked(s.Revoked, kindJWT, key.GetKeyId()) || findJWT(s.Bundle, key.GetKeyId()) != nil {
			continue
		}
		s.Bundle.JwtAuthorities = append(s.Bundle.JwtAuthorities, key)
	}
}

// dropOldest makes room for one more.
func dropOldest[P interface {
	GetStatus() storepb.X509Authority_Status
}](records []P) []P {
	for i := 0; len(records) >= maxRecords && i < len(records); {
		if records[i].GetStatus() == storepb.X509Authority_OLD {
			records = slices.Delete(records, i, i+1)
			continue
		}
		i++
	}
	return records
}

func findX509(bundle *types.Bundle, der []byte) *types.X509Certificate {
	for _, authority := range bundle.GetX509Authorities() {
		if bytes.Equal(authority.GetAsn1(), der) {
			return authority
		}
	}
	return nil
}

func isRevoked(revoked []*storepb.RevokedAuthority, k kind, id string) bool {
	return slices.ContainsFunc(revoked, func(r *storepb.RevokedAuthority) bool {
		return r.GetKind() == k.String() && r.GetAuthorityId() == id
	})
}
