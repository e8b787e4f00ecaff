package jwtsvid

import (
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// maxIssuedAhead is how far a token may have been issued in the future: clocks
// differ, and "iat" protects nobody. It is SPIRE's. What ends a token, "exp", and
// what begins it, "nbf", are taken at their word.
const maxIssuedAhead = time.Minute

// Validate returns the token if it is valid at now for the audience: signed with
// a key of its subject's own trust domain, which bundle returns the keys of, nil
// if there are none. Errors are for whoever has the token, and worded as SPIRE's.
func Validate(text, audience string, now time.Time, bundle func(spiffeid.TrustDomain) *Bundle) (Token, error) {
	parsed, keyID, err := parse(text)
	if err != nil {
		return Token{}, err
	}
	claims := make(map[string]any)
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return Token{}, errClaims
	}
	unverified, err := read(text, keyID, claims)
	if err != nil {
		return Token{}, err
	}
	td := unverified.ID.TrustDomain()
	keys := bundle(td)
	if keys == nil {
		return Token{}, fmt.Errorf("no keys found for trust domain %q", td.Name())
	}
	key, ok := keys.At(keyID, now)
	if !ok {
		return Token{}, fmt.Errorf("public key %q not found in trust domain %q", keyID, td.Name())
	}
	// From here on nothing is used but what the signature is over.
	claims = make(map[string]any)
	if err := parsed.Claims(key, &claims); err != nil {
		return Token{}, errors.New("token's signature is not valid")
	}
	token, err := read(text, keyID, claims)
	if err != nil {
		return Token{}, err
	}
	if err := token.check(audience, now); err != nil {
		return Token{}, err
	}
	return token, nil
}

// check is what is left when the signature is good.
func (t Token) check(audience string, now time.Time) error {
	switch {
	case !now.Before(t.ExpiresAt):
		return errors.New("token has expired")
	case now.Before(t.notBefore):
		return errors.New("token is not valid yet")
	case t.IssuedAt.After(now.Add(maxIssuedAhead)):
		return errors.New("token was issued in the future: compare the clocks")
	case !t.For(audience):
		return fmt.Errorf("expected audience in %q (audience=%q)", []string{audience}, t.Audience)
	}
	return nil
}
