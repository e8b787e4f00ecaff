package jwtsvid_test

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

const web = "spiffe://example.org/web"

func now() time.Time { return time.Unix(1_800_000_000, 0) }

// with is the claims of a good token with one changed; nil removes it.
func with(name string, value any) map[string]any {
	claims := jwttest.Claims(web, now(), time.Minute, "shop", "bank")
	claims[name] = value
	if value == nil {
		delete(claims, name)
	}
	return claims
}

func only(b *jwtsvid.Bundle) func(spiffeid.TrustDomain) *jwtsvid.Bundle {
	return func(td spiffeid.TrustDomain) *jwtsvid.Bundle {
		if td != b.TrustDomain() {
			return nil
		}
		return b
	}
}

// A token is over at its "exp", to the second, and not before: libraries give it a minute more, in which a token stolen, or
// taken back, still opens doors.
func TestGuardJWTExpiryHasNoLeeway(t *testing.T) {
	a := jwttest.New(t, "example.org", "k")
	end := now().Add(time.Minute)
	token := a.MustSign(t, with("exp", end.Unix()))
	for at, want := range map[time.Time]string{
		end.Add(-time.Nanosecond): "",
		end:                       "token has expired",
		end.Add(time.Second):      "token has expired",
		end.Add(time.Hour):        "token has expired",
	} {
		_, err := jwtsvid.Validate(token, "shop", at, only(a.Bundle()))
		if text := fmt.Sprint(err); text != want && (want != "" || err != nil) {
			t.Errorf("%s after its end: %v", at.Sub(end), err)
		}
	}
	early := a.MustSign(t, with("nbf", end.Unix()))
	if _, err := jwtsvid.Validate(early, "shop", end.Add(-time.Second), only(a.Bundle())); err == nil {
		t.Error("a token was taken a second before it begins")
	}
}

func TestValidate(t *testing.T) {
	a := jwttest.New(t, "example.org", "k")
	other := jwttest.New(t, "other.org", "k")
	same := jwttest.New(t, "example.org", "k") // the key ID of another key
	for name, c := range map[string]struct {
		token string
		want  string // in the error
	}{
		"good":                {a.MustSign(t, with("x", 1.5)), ""},
		"one audience":        {a.MustSign(t, with("aud", "shop")), ""},
		"JOSE":                {a.MustSign(t, with("x", 1), map[jose.HeaderKey]any{"typ": "JOSE"}), ""},
		"clocks differ":       {a.MustSign(t, with("iat", now().Add(50*time.Second).Unix())), ""},
		"another key":         {same.MustSign(t, with("x", 1)), "signature is not valid"},
		"key of another td":   {other.MustSign(t, with("x", 1)), "signature is not valid"},
		"unknown td":          {other.MustSign(t, with("sub", "spiffe://other.org/web")), `no keys found for trust domain "other.org"`},
		"foreign subject":     {a.MustSign(t, with("sub", "spiffe://other.org/web")), "no keys found"},
		"unknown key":         {jwttest.New(t, "example.org", "k2").MustSign(t, with("x", 1)), `public key "k2" not found in trust domain "example.org"`},
		"no key ID":           {jwttest.New(t, "example.org", "").MustSign(t, with("x", 1)), "token header missing key id"},
		"other audience":      {a.MustSign(t, with("aud", []string{"else"})), `expected audience in ["shop"] (audience=["else"])`},
		"no audience":         {a.MustSign(t, with("aud", nil)), "token missing aud claim"},
		"empty audience":      {a.MustSign(t, with("aud", []string{})), "token missing aud claim"},
		"odd audience":        {a.MustSign(t, with("aud", 5)), "invalid aud claim"},
		"mixed audience":      {a.MustSign(t, with("aud", []any{"shop", 5})), "invalid aud claim"},
		"no subject":          {a.MustSign(t, with("sub", nil)), "token missing subject claim"},
		"odd subject":         {a.MustSign(t, with("sub", 5)), "token missing subject claim"},
		"no SPIFFE ID":        {a.MustSign(t, with("sub", "web")), "invalid subject claim"},
		"no end":              {a.MustSign(t, with("exp", nil)), "token missing exp claim"},
		"end as text":         {a.MustSign(t, with("exp", "1900000000")), "invalid exp claim"},
		"end beyond all time": {a.MustSign(t, with("exp", 1e300)), "invalid exp claim"},
		"begin as text":       {a.MustSign(t, with("nbf", "0")), "invalid nbf claim"},
		"issued in future":    {a.MustSign(t, with("iat", now().Add(time.Hour).Unix())), "issued in the future"},
		"type":                {a.MustSign(t, with("x", 1), map[jose.HeaderKey]any{"typ": "at+jwt"}), "neither JWT nor JOSE"},
		"critical":            {a.MustSign(t, with("x", 1), map[jose.HeaderKey]any{"crit": []string{"b64"}, "b64": true}), "critical"},
		"too long":            {a.MustSign(t, with("x", strings.Repeat("x", jwtsvid.MaxToken))), "too long"},
		"line break":          {a.MustSign(t, with("x", 1)) + "\n", "compact serialization"},
		"JSON":                {`{"payload":"","signatures":[]}`, "compact serialization"},
		"empty":               {"", "unable to parse"},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := jwtsvid.Validate(c.token, "shop", now(), only(a.Bundle()))
			switch {
			case c.want == "" && (err != nil || token.ID.String() != web || token.Text != c.token):
				t.Errorf("got %v, %v", token, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case err != nil && c.token != "" && strings.Contains(err.Error(), c.token):
				t.Error("the error has the token")
			}
		})
	}
}

// A token's own header never says what it is verified with.
func TestAlgorithmsOfTheStandardOnly(t *testing.T) {
	a := jwttest.New(t, "example.org", "k")
	good := strings.Split(a.MustSign(t, with("x", 1)), ".")
	for name, header := range map[string]string{
		"none": `{"alg":"none","kid":"k"}`, "MAC": `{"alg":"HS256","kid":"k"}`, "EdDSA": `{"alg":"EdDSA","kid":"k"}`,
		"another curve's": `{"alg":"ES384","kid":"k"}`, "another kind's": `{"alg":"RS256","kid":"k"}`,
	} {
		for _, signature := range []string{good[2], ""} {
			token := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + good[1] + "." + signature
			if _, err := jwtsvid.Validate(token, "shop", now(), only(a.Bundle())); err == nil {
				t.Errorf("%s was taken", name)
			}
		}
	}
	embedded := a.MustSign(t, with("x", 1), map[jose.HeaderKey]any{"jwk": jose.JSONWebKey{Key: a.Key.Public()}})
	if _, err := jwtsvid.Validate(embedded, "shop", now(), only(jwttest.New(t, "example.org", "k").Bundle())); err == nil {
		t.Error("a token brought its own key")
	}
}

func TestKeysEnd(t *testing.T) {
	a := jwttest.New(t, "example.org", "k")
	a.ExpiresAt = now().Add(time.Second)
	token := a.MustSign(t, with("x", 1))
	if _, err := jwtsvid.Validate(token, "shop", now(), only(a.Bundle())); err != nil {
		t.Error(err)
	}
	if _, err := jwtsvid.Validate(token, "shop", a.ExpiresAt, only(a.Bundle())); err == nil {
		t.Error("a token was taken by a key that has expired")
	}
}

func TestClaims(t *testing.T) {
	a := jwttest.New(t, "example.org", "k")
	token, err := jwtsvid.Validate(a.MustSign(t, with("aud", "shop")), "shop", now(), only(a.Bundle()))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"sub": web, "aud": []any{"shop"}, "iat": float64(now().Unix()), "exp": float64(now().Add(time.Minute).Unix()),
	}
	if diff := cmp.Diff(want, token.Claims()); diff != "" {
		t.Error(diff)
	}
}

func TestTokensStayOutOfTexts(t *testing.T) {
	a := jwttest.New(t, "example.org", "k")
	token, err := jwtsvid.Inspect(a.MustSign(t, with("x", 1)))
	if err != nil || token.KeyID != "k" {
		t.Fatal(token, err)
	}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("got", "token", token)
	fmt.Fprintf(&b, "%v %+v %s", token, token, token)
	if strings.Contains(b.String(), token.Text) || !strings.Contains(b.String(), web) {
		t.Error(b.String())
	}
}

func TestJWKSIsStandard(t *testing.T) {
	a, b := jwttest.New(t, "example.org", "b"), jwttest.New(t, "example.org", "a")
	doc, err := a.Bundle(b).JWKS()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(doc), `"use"`) {
		t.Errorf("has a use: %s", doc)
	}
	parsed, err := jwtbundle.Parse(a.TrustDomain, doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []*jwttest.Authority{a, b} {
		if key, ok := parsed.FindJWTAuthority(one.KeyID); !ok || !one.Key.PublicKey.Equal(key) {
			t.Errorf("key %s: %v", one.KeyID, key)
		}
	}
	again, err := b.Bundle(a).JWKS()
	if err != nil || string(again) != string(doc) || !a.Bundle(b).Equal(b.Bundle(a)) || a.Bundle().Equal(b.Bundle()) {
		t.Errorf("the order of keys matters: %s, %s, %v", doc, again, err)
	}
	if empty, err := jwtsvid.NewBundle(a.TrustDomain).JWKS(); err != nil || string(empty) != `{"keys":[]}` {
		t.Errorf("without keys: %s, %v", empty, err)
	}
}
