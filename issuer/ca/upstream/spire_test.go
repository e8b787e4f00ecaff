package upstream_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/ca/upstream"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// sign returns an SVID of the issuer.
func sign(t *testing.T, i *issuer, path string) *x509svid.SVID {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := spiffeid.RequireFromPath(td, path)
	chain, err := i.SignX509SVID(t.Context(), ca.Params{ID: id, PublicKey: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}
}

func TestNestedIssuer(t *testing.T) {
	p := newParent(t)
	child := p.below()
	child.load()
	svid := sign(t, child, "/web")
	if len(svid.Certificates) != 2 {
		t.Fatalf("%d certificates: want the leaf and the child's authority", len(svid.Certificates))
	}
	if ou := svid.Certificates[1].Subject.OrganizationalUnit; len(ou) != 1 || ou[0] != "DOWNSTREAM-1" {
		t.Errorf("the child's authority is %s", svid.Certificates[1].Subject)
	}
	// Whoever trusts the parent trusts what the child signs, and the other way round.
	if _, _, err := x509svid.Verify(svid.Certificates, p.x509Bundle(t.Context())); err != nil {
		t.Error(err)
	}
	if _, _, err := x509svid.Verify(sign(t, p.issuer, "/db").Certificates, child.x509Bundle(t.Context())); err != nil {
		t.Error(err)
	}
	states, err := child.X509State()
	if err != nil || states.Active.UpstreamSubjectKeyID != hex.EncodeToString(p.x509Bundle(t.Context()).X509Authorities()[0].SubjectKeyId) {
		t.Errorf("%+v, %v", states.Active, err)
	}
	jwt, err := child.JWTState()
	if err != nil || !hasKey(p.bundle(t.Context()), jwt.Active.ID) {
		t.Errorf("the child's JWT authority is not in the parent's bundle: %v", err)
	}
	if parents, err := p.JWTState(); err != nil || !hasKey(child.bundle(t.Context()), parents.Active.ID) {
		t.Errorf("the parent's JWT authority is not in the child's bundle: %v", err)
	}
	if _, err := child.TaintX509(t.Context(), "x"); !errors.Is(err, ca.ErrUpstream) {
		t.Errorf("%v", err)
	}
}

func hasKey(bundle *types.Bundle, kid string) bool {
	for _, key := range bundle.GetJwtAuthorities() {
		if key.KeyId == kid {
			return true
		}
	}
	return false
}

// An incident at the parent goes through to the child by itself.
func TestTaintOfTheParentForcesRotation(t *testing.T) {
	p := newParent(t)
	child := p.below()
	child.load()
	child.run()
	before, err := child.X509State()
	if err != nil {
		t.Fatal(err)
	}
	first := before.Active.UpstreamSubjectKeyID
	second, err := p.PrepareX509(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the parent's new root in the child's bundle", func() bool { return child.root(second.ID) != nil })
	if _, err := p.ActivateX509(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	p.renewAgent()
	if _, err := p.TaintX509(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	until(t, "the taint in the child's bundle", func() bool { return child.root(first).GetTainted() })
	// It was tainted here only when everyone could move.
	after, err := child.X509State()
	if err != nil || after.Active.UpstreamSubjectKeyID != second.ID || after.Active.ID == before.Active.ID {
		t.Errorf("%+v, %v: want an authority below %s", after.Active, err, second.ID)
	}
	until(t, "the child's own SVID", func() bool {
		own, err := child.SVID()
		return err == nil && hex.EncodeToString(own.Certificates[0].AuthorityKeyId) == after.Active.ID
	})
	if _, err := p.RevokeX509(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	until(t, "the revocation", func() bool { return child.root(first) == nil })
	if _, _, err := x509svid.Verify(sign(t, child, "/web").Certificates, p.x509Bundle(t.Context())); err != nil {
		t.Error(err)
	}
}

// A parent that revokes faster than the child looks must not leave the child with
// what it trusts no more.
func TestGuardRevocationBetweenTwoLooks(t *testing.T) {
	p := newParent(t)
	child := p.below()
	child.load()
	child.run()
	before, err := child.X509State()
	if err != nil {
		t.Fatal(err)
	}
	first := before.Active.UpstreamSubjectKeyID
	second, err := p.PrepareX509(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key := &types.JWTKey{KeyId: "below", PublicKey: p.bundle(t.Context()).JwtAuthorities[0].PublicKey}
	if _, err := p.PublishJWTKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	until(t, "the parent's news in the child's bundle", func() bool {
		return child.root(second.ID) != nil && hasKey(child.bundle(t.Context()), key.KeyId)
	})
	if _, err := p.ActivateX509(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	p.renewAgent()
	if _, err := p.store.UpdateCA(t.Context(), func(s *store.CAState) error {
		s.Bundle.X509Authorities = slices.DeleteFunc(s.Bundle.X509Authorities, func(a *types.X509Certificate) bool {
			cert, err := x509.ParseCertificate(a.Asn1)
			return err == nil && hex.EncodeToString(cert.SubjectKeyId) == first
		})
		s.Bundle.JwtAuthorities = slices.DeleteFunc(s.Bundle.JwtAuthorities, func(k *types.JWTKey) bool { return k.KeyId == key.KeyId })
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	until(t, "the revocation", func() bool { return child.root(first) == nil && !hasKey(child.bundle(t.Context()), key.KeyId) })
	after, err := child.X509State()
	if err != nil || after.Active.UpstreamSubjectKeyID != second.ID {
		t.Errorf("%+v, %v: want an authority below %s", after.Active, err, second.ID)
	}
	if states, err := child.JWTState(); err != nil || !hasKey(child.bundle(t.Context()), states.Active.ID) {
		t.Errorf("our own JWT authority went too: %+v, %v", states, err)
	}
}

// By hand, where the parent does not know or not yet: what is revoked here stays
// out, though the parent still has it.
func TestTaintAndRevokeUpstreamByHand(t *testing.T) {
	p := newParent(t)
	child := p.below()
	child.load()
	child.run()
	states, err := child.X509State()
	if err != nil {
		t.Fatal(err)
	}
	first := states.Active.UpstreamSubjectKeyID
	err = child.TaintX509Upstream(t.Context(), first)
	if !errors.Is(err, ca.ErrAuthorityID) || err.Error() != "provided subject key id is not valid: unable to use upstream authority singing current authority" {
		t.Errorf("%v", err)
	}
	second, err := p.PrepareX509(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.ActivateX509(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	next, err := child.PrepareX509(t.Context())
	if err != nil || next.UpstreamSubjectKeyID != second.ID {
		t.Fatalf("%+v, %v", next, err)
	}
	if _, err := child.ActivateX509(t.Context(), next.ID); err != nil {
		t.Fatal(err)
	}
	err = child.RevokeX509Upstream(t.Context(), first)
	if err == nil || err.Error() != "failed to revoke X.509 upstream authority: it is not possible to revoke an untainted root CA" {
		t.Errorf("%v", err)
	}
	if err := child.TaintX509Upstream(t.Context(), strings.ToUpper(first)); err != nil {
		t.Fatal(err)
	}
	if err := child.RevokeX509Upstream(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	// The parent's bundle changes, with the old root still in it.
	third, err := p.PrepareX509(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the next change of the parent's", func() bool { return child.root(third.ID) != nil })
	if child.root(first) != nil {
		t.Error("a revoked root is back")
	}
}

func TestParentWithoutJWT(t *testing.T) {
	p := newParent(t)
	p.noJWT = true
	child := p.below()
	child.load()
	states, err := child.JWTState()
	if err != nil || !hasKey(child.bundle(t.Context()), states.Active.ID) {
		t.Errorf("%+v, %v", states, err)
	}
}

// An issuer whose parent is away starts with what it has.
func TestParentAway(t *testing.T) {
	p := newParent(t)
	p.agent.Fail(codes.PermissionDenied)
	child := p.below()
	err := child.Load(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no SVID from the Workload API at "+p.agent.Addr()) {
		t.Fatalf("%v", err)
	}
	p.renewAgent()
	child.load()
	p.agent.Stop()
	child.load()
	sign(t, child, "/web")
}

// The bundle of another trust domain must never become ours.
func TestParentOfAnotherTrustDomain(t *testing.T) {
	wrong := newParent(t).bundle(t.Context())
	wrong.TrustDomain = "other.test"
	if _, err := upstream.ParseBundle(td, wrong); err == nil || !strings.Contains(err.Error(), `"other.test"`) {
		t.Errorf("%v", err)
	}
	if _, err := upstream.ParseBundle(td, &types.Bundle{TrustDomain: td.Name()}); err == nil {
		t.Error("an empty bundle was taken")
	}
}

// A key of an issuer two below reaches the top, once, and not after it was
// revoked on the way.
func TestPublishJWTThroughANestedIssuer(t *testing.T) {
	p := newParent(t)
	child := p.below()
	child.load()
	states, err := child.JWTState()
	if err != nil {
		t.Fatal(err)
	}
	var public []byte
	for _, key := range child.bundle(t.Context()).JwtAuthorities {
		if key.KeyId == states.Active.ID {
			public = key.PublicKey
		}
	}
	key := &types.JWTKey{KeyId: "below", PublicKey: public, Tainted: true}
	for range 2 {
		keys, err := child.PublishJWTKey(t.Context(), key)
		if err != nil || len(keys) != 3 {
			t.Fatalf("%d keys, %v: want the parent's, the child's and this one", len(keys), err)
		}
	}
	if !hasKey(p.bundle(t.Context()), "below") || !hasKey(child.bundle(t.Context()), "below") {
		t.Error("it is not in both bundles")
	}
	for _, key := range child.bundle(t.Context()).JwtAuthorities {
		if key.Tainted {
			t.Errorf("%s was published as tainted", key.KeyId)
		}
	}
	if _, err := child.PublishJWTKey(t.Context(), &types.JWTKey{KeyId: "below", PublicKey: []byte{1}}); !errors.Is(err, ca.ErrAuthorityID) {
		t.Errorf("another key under the same ID: %v", err)
	}
}
