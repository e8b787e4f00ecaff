package jwtsvid_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// FuzzValidate gives whole tokens: none that the key has not signed is taken, and none is taken that Inspect refuses.
func FuzzValidate(f *testing.F) {
	a := jwttest.New(f, "example.org", "k")
	good := a.MustSign(f, jwttest.Claims(web, now(), time.Minute, "shop"))
	parts := strings.Split(good, ".")
	f.Add(good)
	f.Add(parts[0] + "." + parts[1] + ".")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		_, inspected := jwtsvid.Inspect(text)
		token, err := jwtsvid.Validate(text, "shop", now(), only(a.Bundle()))
		if err != nil {
			return
		}
		if inspected != nil || !strings.HasPrefix(text, parts[0]+"."+parts[1]+".") || token.ID.String() != web {
			t.Fatalf("taken: %q", text)
		}
	})
}

// FuzzClaims signs whatever claims: what is taken is in time, for the audience, of the subject, and can be answered.
func FuzzClaims(f *testing.F) {
	a := jwttest.New(f, "example.org", "k")
	f.Add(`{"sub":"spiffe://example.org/web","aud":"shop","exp":1800000060}`)
	f.Add(`{"sub":"spiffe://example.org/web","aud":["shop","x"],"exp":1.80000006e9,"nbf":0,"iat":-1.5,"x":{"y":[null,true]}}`)
	f.Add(`{"sub":"spiffe://example.org/web","aud":"shop","exp":1799999999,"EXP":1900000000,"exp ":1}`)
	f.Add(`{"sub":"spiffe://example.org/web","sub":"spiffe://other.org/web","aud":"shop","exp":1800000060}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, payload string) {
		text, err := a.SignRaw([]byte(payload))
		if err != nil {
			return
		}
		asked := spiffeid.TrustDomain{}
		token, err := jwtsvid.Validate(text, "shop", now(), func(td spiffeid.TrustDomain) *jwtsvid.Bundle {
			asked = td
			return a.Bundle()
		})
		if err != nil {
			return
		}
		if asked != token.ID.TrustDomain() || !now().Before(token.ExpiresAt) || !token.For("shop") {
			t.Fatalf("taken: %s", payload)
		}
		claims, err := structpb.NewStruct(token.Claims())
		if err != nil {
			return // text that is not UTF-8: refused
		}
		if _, err := proto.Marshal(claims); err != nil {
			t.Fatalf("cannot be answered: %v", err)
		}
	})
}
