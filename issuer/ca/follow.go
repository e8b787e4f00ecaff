package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// follow keeps the bundle in step with the parent's until ctx is done.
func (a *Authority) follow(ctx context.Context, watcher Watcher) {
	watcher.Watch(ctx, func(ctx context.Context, roots Roots) error {
		if err := a.take(ctx); err != nil {
			return err
		}
		defer a.give()
		defer a.nudge()
		return a.applyRoots(ctx, roots)
	})
}

// applyRoots takes over what the parent trusts. What is new there is trusted
// here at once. What is tainted there is tainted here only when our own
// authority is below another root: agents and issuers below us then find that
// one to move to. What is tainted here and gone there is revoked; so is what was
// there the last time, for it may be tainted and revoked between two looks. All
// of it may be interrupted anywhere, and done again.
func (a *Authority) applyRoots(ctx context.Context, roots Roots) error {
	tainted := a.withGone(roots)
	if err := a.update(ctx, func(s *store.CAState) error {
		publishJWT(s, roots.JWT)
		s.Bundle = publishedRoots(s.Bundle, a.cfg.TrustDomain.Name(), roots.X509, s.Revoked)
		return nil
	}); err != nil {
		return fmt.Errorf("publish the roots of the upstream authority: %w", err)
	}
	if err := a.leaveTainted(ctx, tainted.X509); err != nil {
		return err
	}
	err := a.update(ctx, func(s *store.CAState) error {
		taintAsParent(s.Bundle, tainted)
		a.revokeAsParent(s.Bundle, roots)
		return nil
	})
	if err != nil {
		return fmt.Errorf("taint and revoke as the upstream authority does: %w", err)
	}
	if roots.Sequence > a.parents.Sequence {
		a.parents = roots
	}
	return a.renewOwn(ctx, a.cfg.Now().Round(0))
}

// withGone adds to roots, as tainted, what the parent told the last time and not
// any more, but for our own JWT authorities. An answer that is no newer tells
// nothing: of several parents one may be behind.
func (a *Authority) withGone(roots Roots) Roots {
	if roots.Sequence <= a.parents.Sequence {
		return roots
	}
	all := Roots{X509: slices.Clone(roots.X509), JWT: slices.Clone(roots.JWT)}
	for _, was := range a.parents.X509 {
		if !slices.ContainsFunc(roots.X509, func(r Root) bool { return r.Certificate.Equal(was.Certificate) }) {
			all.X509 = append(all.X509, Root{Certificate: was.Certificate, Tainted: true})
		}
	}
	for _, was := range a.parents.JWT {
		if !slices.ContainsFunc(roots.JWT, func(k *types.JWTKey) bool { return k.GetKeyId() == was.GetKeyId() }) &&
			!slices.ContainsFunc(a.jwt.records, func(r *record) bool { return r.id == was.GetKeyId() }) {
			all.JWT = append(all.JWT, &types.JWTKey{KeyId: was.GetKeyId(), Tainted: true})
		}
	}
	return all
}

// leaveTainted gets our authority off roots that the parent tainted.
func (a *Authority) leaveTainted(ctx context.Context, roots []Root) error {
	now := a.cfg.Now().Round(0)
	below := func(r *record) bool {
		return r != nil && slices.ContainsFunc(roots, func(root Root) bool {
			return root.Tainted && len(r.behind) > 0 && keyIDOf(root.Certificate) == r.upstream
		})
	}
	active := newest(now, a.x509.records, storepb.X509Authority_ACTIVE)
	if !below(active) {
		return nil
	}
	a.cfg.Log.Warn("the upstream authority tainted the root of our authority: replacing it",
		"authority", active.id, "upstream_authority", active.upstream)
	prepared := newest(now, a.x509.records, storepb.X509Authority_PREPARED)
	if prepared == nil || below(prepared) {
		if err := a.create(ctx, now, &a.x509, creation{status: storepb.X509Authority_PREPARED, eager: true}); err != nil {
			return err
		}
		prepared = newest(now, a.x509.records, storepb.X509Authority_PREPARED)
		if prepared == nil || below(prepared) {
			return fmt.Errorf("upstream authority still signs with root %s, which it tainted", active.upstream)
		}
	}
	return a.activate(ctx, now, &a.x509, prepared)
}

// taintAsParent marks what the parent has marked.
func taintAsParent(bundle *types.Bundle, roots Roots) {
	for _, root := range roots.X509 {
		if authority := findX509(bundle, root.Certificate.Raw); authority != nil && root.Tainted {
			authority.Tainted = true
		}
	}
	for _, key := range roots.JWT {
		if ours := findJWT(bundle, key.GetKeyId()); ours != nil && key.GetTainted() {
			ours.Tainted = true
		}
	}
}

// revokeAsParent drops what is tainted here and gone there. The root of our own
// authority stays: to leave it comes first.
func (a *Authority) revokeAsParent(bundle *types.Bundle, roots Roots) {
	bundle.X509Authorities = slices.DeleteFunc(bundle.X509Authorities, func(ours *types.X509Certificate) bool {
		gone := ours.GetTainted() && !slices.ContainsFunc(roots.X509, func(r Root) bool {
			return slices.Equal(r.Certificate.Raw, ours.GetAsn1())
		})
		if !gone || a.activeBelow(ours) {
			return false
		}
		a.cfg.Log.Info("root revoked, as it was upstream", "upstream_authority", nameOf(ours))
		return true
	})
	bundle.JwtAuthorities = slices.DeleteFunc(bundle.JwtAuthorities, func(ours *types.JWTKey) bool {
		return ours.GetTainted() && !slices.ContainsFunc(a.jwt.records, func(r *record) bool { return r.id == ours.GetKeyId() }) &&
			!slices.ContainsFunc(roots.JWT, func(k *types.JWTKey) bool { return k.GetKeyId() == ours.GetKeyId() })
	})
}

// nameOf is the key identifier of an authority; empty if it cannot be read.
func nameOf(authority *types.X509Certificate) string {
	cert, err := x509.ParseCertificate(authority.GetAsn1())
	if err != nil {
		return ""
	}
	return keyIDOf(cert)
}

// activeBelow reports whether our authority that signs has root as its root.
func (a *Authority) activeBelow(root *types.X509Certificate) bool {
	active := a.x509.active.Load()
	if active == nil {
		return false
	}
	alone := &types.Bundle{X509Authorities: []*types.X509Certificate{{Asn1: root.GetAsn1()}}}
	distrusted, _ := distrustX509(active.chain, alone)
	return !distrusted
}

// PublishJWTKey puts the JWT key of an issuer below this one into the bundle,
// upstream first where there is one that takes it, and returns all JWT keys of
// the trust domain. The error wraps [ErrAuthorityID] for a key that was revoked
// here, and for a key ID that is another key's.
func (a *Authority) PublishJWTKey(ctx context.Context, key *types.JWTKey) ([]*types.JWTKey, error) {
	if _, err := a.cfg.Journal.UpdateCA(ctx, func(s *store.CAState) error { return checkJWT(s, key) }); err != nil {
		return nil, err
	}
	// It would be pruned at once, and could come again without end.
	if end := jwtEnd(key); !end.IsZero() && !a.cfg.Now().Before(end) {
		return nil, refuse(ErrAuthorityID, "key %q expired at %s", key.GetKeyId(), end.UTC().Format(time.RFC3339))
	}
	upstream, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	// Whoever publishes a key doesn't taint it.
	keys, err := a.publishUpstream(upstream, &types.JWTKey{PublicKey: key.GetPublicKey(), KeyId: key.GetKeyId(), ExpiresAt: key.GetExpiresAt()})
	if err != nil {
		return nil, err
	}
	if err := a.take(ctx); err != nil {
		return nil, err
	}
	defer a.give()
	if err := a.update(ctx, func(s *store.CAState) error {
		publishJWT(s, keys)
		return checkJWT(s, key)
	}); err != nil {
		return nil, err
	}
	return a.view.Load().bundle.GetJwtAuthorities(), nil
}

// publishTimeout is SPIRE's.
const publishTimeout = 5 * time.Second

// Bounds on what issuers below this one may publish. All agents fetch the bundle
// in one message of 4 MiB at most, and our own next authority needs room in it.
const (
	maxKeyID   = 255  // bytes
	maxJWTKeys = 1000 // with those of this issuer
)

// checkJWT refuses what must not be published.
func checkJWT(s *store.CAState, key *types.JWTKey) error {
	id := key.GetKeyId()
	switch {
	case id == "":
		return refuse(ErrAuthorityID, "missing key ID")
	case len(id) > maxKeyID:
		return refuse(ErrAuthorityID, "key ID has %d bytes, at most %d", len(id), maxKeyID)
	}
	public, err := x509.ParsePKIXPublicKey(key.GetPublicKey())
	if err == nil {
		err = checkPublicKey(public)
	}
	if err != nil {
		return refuse(ErrAuthorityID, "key %q: %v", id, err)
	}
	if isRevoked(s.Revoked, kindJWT, id) {
		return refuse(ErrAuthorityID, "JWT authority %q was revoked here: prepare another one", id)
	}
	if known := findJWT(s.Bundle, id); known != nil && !slices.Equal(known.GetPublicKey(), key.GetPublicKey()) {
		return refuse(ErrAuthorityID, "key ID %q is that of another key", id)
	}
	if n := len(s.Bundle.GetJwtAuthorities()); n >= maxJWTKeys && findJWT(s.Bundle, id) == nil {
		return refuse(ErrAuthorityID, "the bundle has %d JWT authorities already: taint and revoke those that nobody uses", n)
	}
	return nil
}
