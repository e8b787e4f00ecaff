package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
	"github.com/google/uuid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// JWTParams say what a JWT-SVID is to hold.
type JWTParams struct {
	// ID is of the issuer's trust domain, with a path.
	ID spiffeid.ID
	// Audience has one at least; empty ones are left out.
	Audience []string
	// TTL is cut to the life of the authority; 0 is the default.
	TTL time.Duration
	// IncludeJTI adds a random "jti" claim (RFC 7519, section 4.1.7).
	IncludeJTI bool
}

// JWTSVID is a token and when it was and ends, in whole seconds.
type JWTSVID struct {
	Token               string
	IssuedAt, ExpiresAt time.Time
}

// SignJWTSVID signs a JWT-SVID. It neither blocks nor touches the disk. The
// error wraps [ErrJWTDisabled], [ErrNotReady] or [ErrParams].
func (a *Authority) SignJWTSVID(ctx context.Context, p JWTParams) (JWTSVID, error) {
	if a.cfg.DisableJWT {
		return JWTSVID{}, ErrJWTDisabled
	}
	start := time.Now()
	svid, err := a.signJWT(ctx, p, a.cfg.Now())
	a.cfg.Signed("jwt", time.Since(start), err)
	return svid, err
}

func (a *Authority) signJWT(ctx context.Context, p JWTParams, now time.Time) (JWTSVID, error) {
	audience := slices.DeleteFunc(slices.Clone(p.Audience), func(s string) bool { return s == "" })
	switch {
	case !p.ID.MemberOf(a.cfg.TrustDomain) || p.ID.Path() == "":
		return JWTSVID{}, fmt.Errorf("%w: %q is not a member of trust domain %q", ErrParams, p.ID, a.cfg.TrustDomain.Name())
	case len(audience) == 0:
		return JWTSVID{}, fmt.Errorf("%w: audience cannot be empty", ErrParams)
	}
	issuer, err := a.signer(&a.jwt, now)
	if err != nil {
		return JWTSVID{}, err
	}
	if p.TTL <= 0 {
		p.TTL = a.cfg.JWTSVIDTTL
	}
	expires := now.Add(p.TTL)
	if expires.After(issuer.notAfter) {
		expires = issuer.notAfter
	}
	claims := map[string]any{
		"sub": p.ID.String(),
		"aud": audience,
		"iat": now.Unix(),
		"exp": expires.Unix(),
	}
	if p.IncludeJTI {
		id := uuid.New()
		claims["jti"] = base64.RawURLEncoding.EncodeToString(id[:])
	}
	if a.cfg.JWTIssuer != "" {
		claims["iss"] = a.cfg.JWTIssuer
	}
	if err := a.composeJWT(ctx, p.ID, claims); err != nil {
		return JWTSVID{}, err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return JWTSVID{}, fmt.Errorf("%w: %w", ErrParams, err)
	}
	token, err := issuer.jose.Sign(payload)
	if err != nil {
		return JWTSVID{}, fmt.Errorf("%w: %w", ErrParams, err)
	}
	compact, err := token.CompactSerialize()
	if err != nil {
		return JWTSVID{}, fmt.Errorf("%w: %w", ErrParams, err)
	}
	return JWTSVID{Token: compact, IssuedAt: time.Unix(claims["iat"].(int64), 0), ExpiresAt: time.Unix(claims["exp"].(int64), 0)}, nil
}

// composeJWT lets the composers change claims. What the JWT-SVID standard
// (section 3) demands, and the times, are ours.
func (a *Authority) composeJWT(ctx context.Context, id spiffeid.ID, claims map[string]any) error {
	if len(a.cfg.Composers) == 0 {
		return nil
	}
	ours := maps.Clone(claims)
	for _, c := range a.cfg.Composers {
		if err := c.ComposeJWT(ctx, id, claims); err != nil {
			return fmt.Errorf("%w: composer: %w", ErrParams, err)
		}
	}
	for _, name := range []string{"sub", "aud", "iat", "exp"} {
		claims[name] = ours[name]
	}
	return nil
}

// newJOSE returns what signs with key; it is safe for concurrent use.
func newJOSE(kid string, key crypto.Signer) (jose.Signer, error) {
	alg, err := joseAlgorithm(key.Public())
	if err != nil {
		return nil, err
	}
	signing := any(key)
	switch key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey:
	default:
		signing = cryptosigner.Opaque(key)
	}
	return jose.NewSigner(
		jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: signing, KeyID: kid}},
		new(jose.SignerOptions).WithType("JWT"),
	)
}

// joseAlgorithm is that of the JWT-SVID standard, section 2.1, for a key.
func joseAlgorithm(pub crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		}
	}
	return "", fmt.Errorf("no JWT signature algorithm for key %T", pub)
}

// newKID returns the name of a JWT authority: 32 letters and digits, as SPIRE's.
func newKID() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	kid := make([]byte, 0, 32)
	var random [64]byte
	for {
		rand.Read(random[:]) // never fails: crypto/rand
		for _, b := range random {
			// Evenly: bytes beyond the last whole round of the alphabet are left out.
			if int(b) >= 256/len(alphabet)*len(alphabet) {
				continue
			}
			if kid = append(kid, alphabet[int(b)%len(alphabet)]); len(kid) == cap(kid) {
				return string(kid)
			}
		}
	}
}
