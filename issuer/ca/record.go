package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// record is one authority of this issuer. It is immutable.
type record struct {
	kind     kind
	id       string // lower-case hex of the subject key identifier, or the kid
	slot     string // where its key is
	status   storepb.X509Authority_Status
	signer   crypto.Signer // nil if the slot's key is another's, or gone
	issued   time.Time
	notAfter time.Time
	// eager is activated as soon as all agents hold it.
	eager bool
	// distrusted: the bundle has it, or the root above it, tainted or not at all.
	distrusted, tainted bool

	// Of kindX509 alone.
	cert     *x509.Certificate
	chain    []*x509.Certificate // cert, then its intermediates
	behind   []*x509.Certificate // what of chain goes behind the leaves it signs
	upstream string              // hex of the root's key identifier; empty if cert is the root
	leaves   *leafMaker          // nil without a signer

	// Of kindJWT alone.
	public []byte      // DER of the SubjectPublicKeyInfo
	jose   jose.Signer // nil without a signer
}

// usable reports whether r could sign at now. A clock that was set back by a
// little changes nothing: verifiers are as far from it as they were.
func (r *record) usable(now time.Time) bool {
	return r.signer != nil && now.Before(r.notAfter) && !r.early(now)
}

// early reports whether r is not valid yet: the clock is set back, or was ahead
// when r was made. Verifiers refuse what it signs.
func (r *record) early(now time.Time) bool {
	return r.kind == kindX509 && now.Add(maxClockStep).Before(r.issued)
}

func (r *record) lifetime() time.Duration { return r.notAfter.Sub(r.issued) }

// state is what is told of r; nil of none.
func (r *record) state() *AuthorityState {
	if r == nil {
		return nil
	}
	return &AuthorityState{ID: r.id, ExpiresAt: r.notAfter, UpstreamSubjectKeyID: r.upstream}
}

// readX509 joins a record of the journal to its key and to the bundle. A key
// that is gone, or another's since, leaves an authority that cannot sign and is
// replaced.
func (a *Authority) readX509(ctx context.Context, p *storepb.X509Authority, bundle *types.Bundle) (*record, error) {
	chain, err := x509.ParseCertificates(p.GetCertificate())
	if err == nil && len(chain) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("certificate of authority %q in the store: %w", p.GetAuthorityId(), err)
	}
	r := &record{
		kind:     kindX509,
		id:       p.GetAuthorityId(),
		slot:     p.GetKeyId(),
		status:   p.GetStatus(),
		issued:   time.Unix(p.GetIssuedAt(), 0),
		notAfter: chain[0].NotAfter,
		eager:    p.GetEager(),
		cert:     chain[0],
		chain:    chain,
		behind:   presented(chain),
		upstream: p.GetUpstreamAuthorityId(),
	}
	r.distrusted, r.tainted = distrustX509(r.chain, bundle)
	if r.signer, err = a.signerOf(ctx, r, chain[0].PublicKey); err != nil || r.signer == nil {
		return r, err
	}
	r.leaves, err = newLeafMaker(r.cert, r.signer)
	return r, err
}

// readJWT is readX509 of a JWT authority.
func (a *Authority) readJWT(ctx context.Context, p *storepb.JWTAuthority, bundle *types.Bundle) (*record, error) {
	public, err := x509.ParsePKIXPublicKey(p.GetPublicKey())
	if err != nil {
		return nil, fmt.Errorf("public key of JWT authority %q in the store: %w", p.GetAuthorityId(), err)
	}
	r := &record{
		kind:       kindJWT,
		id:         p.GetAuthorityId(),
		slot:       p.GetKeyId(),
		status:     p.GetStatus(),
		issued:     time.Unix(p.GetIssuedAt(), 0),
		notAfter:   time.Unix(p.GetNotAfter(), 0),
		eager:      p.GetEager(),
		public:     p.GetPublicKey(),
		distrusted: true,
	}
	if key := findJWT(bundle, r.id); key != nil {
		r.distrusted, r.tainted = key.GetTainted(), key.GetTainted()
	}
	if r.signer, err = a.signerOf(ctx, r, public); err != nil || r.signer == nil {
		return r, err
	}
	r.jose, err = newJOSE(r.id, r.signer)
	return r, err
}

// signerOf returns the key of r, nil if it is gone.
func (a *Authority) signerOf(ctx context.Context, r *record, public crypto.PublicKey) (crypto.Signer, error) {
	signer, err := a.cfg.Keys.Signer(ctx, r.slot)
	switch {
	case err == nil && samePublicKey(signer.Public(), public):
		return signer, nil
	case err != nil && !errors.Is(err, ErrNoKey):
		return nil, err
	case r.status != storepb.X509Authority_OLD:
		a.cfg.Log.Warn("the key of an authority is gone: it will be replaced",
			"kind", r.kind, "authority", r.id, "key", r.slot, "status", r.status)
	}
	return nil, nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// protoX509 is r as the journal keeps it.
func (r *record) protoX509() *storepb.X509Authority {
	var der []byte
	for _, cert := range r.chain {
		der = append(der, cert.Raw...)
	}
	return &storepb.X509Authority{
		AuthorityId:         r.id,
		KeyId:               r.slot,
		Certificate:         der,
		Status:              r.status,
		IssuedAt:            r.issued.Unix(),
		NotAfter:            r.notAfter.Unix(),
		UpstreamAuthorityId: r.upstream,
		Eager:               r.eager,
	}
}

func (r *record) protoJWT() *storepb.JWTAuthority {
	return &storepb.JWTAuthority{
		AuthorityId: r.id,
		KeyId:       r.slot,
		PublicKey:   r.public,
		Status:      r.status,
		IssuedAt:    r.issued.Unix(),
		NotAfter:    r.notAfter.Unix(),
		Eager:       r.eager,
	}
}

// distrustX509 looks for the root of chain in the bundle. Roots with one key, as
// a renewed one, stand for each other.
func distrustX509(chain []*x509.Certificate, bundle *types.Bundle) (distrusted, tainted bool) {
	last := chain[len(chain)-1]
	distrusted = true
	for _, authority := range bundle.GetX509Authorities() {
		root, err := x509.ParseCertificate(authority.GetAsn1())
		if err != nil || !bytes.Equal(last.RawIssuer, root.RawSubject) || last.CheckSignatureFrom(root) != nil {
			continue
		}
		if !authority.GetTainted() {
			return false, false
		}
		tainted = true
	}
	return distrusted, tainted
}

func findJWT(bundle *types.Bundle, kid string) *types.JWTKey {
	i := slices.IndexFunc(bundle.GetJwtAuthorities(), func(k *types.JWTKey) bool { return k.GetKeyId() == kid })
	if i < 0 {
		return nil
	}
	return bundle.GetJwtAuthorities()[i]
}
