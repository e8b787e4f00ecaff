package jwtsvid

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// MaxToken is the longest token that is looked at, in bytes. HTTP servers take
// headers of 8 to 16 KiB.
const MaxToken = 32 << 10

// algorithms are those of the standard (section 2.1), and no others: neither
// "none" nor a MAC whose key would be a public one.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.PS256, jose.PS384, jose.PS512,
	}
}

// Token is a JWT-SVID and what it says of itself.
type Token struct {
	// Text is the token, in compact serialization. It is secret: whoever has
	// it is its subject. Never log it.
	Text string
	ID   spiffeid.ID
	// KeyID is what it was signed with.
	KeyID    string
	Audience []string
	// IssuedAt is zero in a token without "iat".
	IssuedAt  time.Time
	ExpiresAt time.Time
	notBefore time.Time
	claims    map[string]any
}

// LogValue keeps the token out of logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// String keeps the token out of texts.
func (t Token) String() string { return "JWT-SVID of " + t.ID.String() }

// Inspect reads a token that comes from the issuer itself, without verifying it.
func Inspect(text string) (Token, error) {
	parsed, keyID, err := parse(text)
	if err != nil {
		return Token{}, err
	}
	claims := make(map[string]any)
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return Token{}, errClaims
	}
	return read(text, keyID, claims)
}

var errClaims = errors.New("token's claims are not a JSON object")

// parse takes the token apart and checks its header (sections 2 and 5.1).
func parse(text string) (_ *jwt.JSONWebToken, keyID string, _ error) {
	if len(text) > MaxToken {
		return nil, "", fmt.Errorf("token of %d bytes is too long: at most %d", len(text), MaxToken)
	}
	// Other characters would be skipped, and make two tokens of one.
	if strings.ContainsFunc(text, func(r rune) bool { return !isBase64URL(r) && r != '.' }) {
		return nil, "", errors.New("unable to parse JWT token: not a JWS in compact serialization")
	}
	parsed, err := jwt.ParseSigned(text, algorithms())
	if err != nil {
		return nil, "", fmt.Errorf("unable to parse JWT token: %w", err)
	}
	if len(parsed.Headers) != 1 {
		return nil, "", fmt.Errorf("expected a single token header; got %d", len(parsed.Headers))
	}
	header := parsed.Headers[0]
	if header.KeyID == "" {
		return nil, "", errors.New("token header missing key id")
	}
	if typ, ok := header.ExtraHeaders[jose.HeaderType]; ok && typ != "JWT" && typ != "JOSE" {
		return nil, "", errors.New("token header has a type that is neither JWT nor JOSE")
	}
	if _, ok := header.ExtraHeaders["crit"]; ok {
		return nil, "", errors.New("token header has critical extensions: none is known")
	}
	return parsed, header.KeyID, nil
}

func isBase64URL(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_'
}

// read takes from the claims what the standard knows (section 3). What is
// decided on and what is told to callers is the same decoding.
func read(text, keyID string, claims map[string]any) (Token, error) {
	t := Token{Text: text, KeyID: keyID, claims: claims}
	sub, _ := claims["sub"].(string)
	if sub == "" {
		return Token{}, errors.New("token missing subject claim")
	}
	var err error
	if t.ID, err = spiffeid.FromString(sub); err != nil {
		return Token{}, fmt.Errorf("token has an invalid subject claim: %w", err)
	}
	if t.Audience, err = audience(claims["aud"]); err != nil {
		return Token{}, err
	}
	if _, ok := claims["exp"]; !ok {
		return Token{}, errors.New("token missing exp claim")
	}
	for name, field := range map[string]*time.Time{"exp": &t.ExpiresAt, "nbf": &t.notBefore, "iat": &t.IssuedAt} {
		if value, ok := claims[name]; ok {
			if *field, err = numericDate(value); err != nil {
				return Token{}, fmt.Errorf("token has an invalid %s claim", name)
			}
		}
	}
	return t, nil
}

// audience reads one text or a list of them (RFC 7519, section 4.1.3).
func audience(v any) ([]string, error) {
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case []any:
		var all []string
		for _, one := range v {
			s, ok := one.(string)
			if !ok {
				return nil, errors.New("token has an invalid aud claim")
			}
			all = append(all, s)
		}
		if len(all) > 0 {
			return all, nil
		}
	case nil:
	default:
		return nil, errors.New("token has an invalid aud claim")
	}
	return nil, errors.New("token missing aud claim")
}

var errNotADate = errors.New("not a time in seconds")

// numericDate reads seconds since 1970, fractions included (RFC 7519, section 2).
func numericDate(v any) (time.Time, error) {
	f, ok := v.(float64)
	if !ok || math.Abs(f) > 1<<53 {
		return time.Time{}, errNotADate
	}
	seconds, fraction := math.Modf(f)
	return time.Unix(int64(seconds), int64(fraction*1e9)), nil
}

// Claims returns all claims as JSON decodes them, "aud" always as a list: what
// SPIRE's agents answer.
func (t Token) Claims() map[string]any {
	all := maps.Clone(t.claims)
	list := make([]any, len(t.Audience))
	for i, one := range t.Audience {
		list[i] = one
	}
	all["aud"] = list
	return all
}

// For reports whether the token is for the audience.
func (t Token) For(audience string) bool { return slices.Contains(t.Audience, audience) }
