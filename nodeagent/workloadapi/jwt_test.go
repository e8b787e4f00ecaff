package workloadapi

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// jwtIssuer signs for the entry, unless it has a reason not to.
type jwtIssuer struct {
	mu     sync.Mutex
	a      *jwttest.Authority
	reason error
}

func (i *jwtIssuer) refuse(reason error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reason = reason
}

func (i *jwtIssuer) NewJWTSVID(_ context.Context, entryID string, audience []string) (jwtsvid.Token, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.reason != nil {
		return jwtsvid.Token{}, i.reason
	}
	id := spiffeid.RequireFromPath(i.a.TrustDomain, "/"+entryID)
	text, err := i.a.Sign(jwttest.Claims(id.String(), time.Now(), time.Minute, audience...))
	if err != nil {
		return jwtsvid.Token{}, err
	}
	return jwtsvid.Inspect(text)
}

// jwtWorld is a service in a bubble of its own clock. Uid 1 has the entries "a" with a hint and "b", which federates with
// other.org; uid 2 has none.
type jwtWorld struct {
	*Service
	issuer *jwtIssuer
	other  *jwttest.Authority
	caller *caller
	cache  *svidcache.Cache
	state  upstream.Update
}

func inJWTWorld(t *testing.T, test func(t *testing.T, w *jwtWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		own, other := jwttest.New(t, "example.org", "k"), jwttest.New(t, "other.org", "k")
		w := &jwtWorld{issuer: &jwtIssuer{a: own}, other: other, caller: new(caller)}
		w.caller.become("1", nil)
		w.cache = svidcache.New(svidcache.Config{TrustDomain: own.TrustDomain})
		tokens := jwtcache.New(jwtcache.Config{Signer: w.issuer})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { tokens.Run(ctx) })
		defer running.Wait()
		defer cancel()
		w.Service = New(Config{
			Attestor: w.caller, Cache: w.cache, JWTs: tokens, Stopping: ctx,
			TrustDomain: own.TrustDomain, AllowedForeignJWTClaims: []string{"email"},
		})
		for id, hint := range map[string]string{"a": "internal", "b": ""} {
			w.state.Entries = append(w.state.Entries, registration.Entry{
				ID: id, SPIFFEID: spiffeid.RequireFromPath(own.TrustDomain, "/"+id), Hint: hint,
				Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}}, FederatesWith: []spiffeid.TrustDomain{other.TrustDomain},
			})
		}
		w.state.Whole = true
		w.state.JWT = map[spiffeid.TrustDomain]*jwtsvid.Bundle{own.TrustDomain: own.Bundle(), other.TrustDomain: other.Bundle()}
		test(t, w)
	})
}

func (w *jwtWorld) sync() { w.cache.Apply(w.state) }

func (w *jwtWorld) fetch(ctx context.Context, id string, audience ...string) (*workloadpb.JWTSVIDResponse, error) {
	return w.FetchJWTSVID(ctx, &workloadpb.JWTSVIDRequest{SpiffeId: id, Audience: audience})
}

func (w *jwtWorld) validate(ctx context.Context, token, audience string) (*workloadpb.ValidateJWTSVIDResponse, error) {
	return w.ValidateJWTSVID(ctx, &workloadpb.ValidateJWTSVIDRequest{Svid: token, Audience: audience})
}

// foreignToken is one of the trust domain that "b" federates with.
func (w *jwtWorld) foreignToken() (string, error) {
	return w.other.Sign(jwttest.Claims("spiffe://other.org/x", time.Now(), time.Minute, "shop"))
}

// jwtBundleStream is the server's end of a FetchJWTBundles.
type jwtBundleStream struct {
	grpc.ServerStreamingServer[workloadpb.JWTBundlesResponse]
	ctx  context.Context
	sent chan []string // the trust domains
}

func (s *jwtBundleStream) Context() context.Context { return s.ctx }

func (s *jwtBundleStream) SendMsg(msg any) error {
	var resp workloadpb.JWTBundlesResponse
	if err := proto.Unmarshal(msg.(encoded), &resp); err != nil {
		return err
	}
	s.sent <- slices.Sorted(maps.Keys(resp.Bundles))
	return nil
}

func wantStatus(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		t.Errorf("%s: %v, want %s %q", what, err, code, text)
	}
}

func TestFetchJWTSVID(t *testing.T) {
	inJWTWorld(t, func(t *testing.T, w *jwtWorld) {
		ctx := t.Context()
		_, err := w.fetch(ctx, "", "shop")
		wantStatus(t, "not synced", err, codes.Unavailable, "not synced")
		w.sync()
		got, err := w.fetch(ctx, "", "shop")
		if err != nil || len(got.Svids) != 2 {
			t.Fatalf("got %v, %v", got, err)
		}
		for i, want := range []*workloadpb.JWTSVID{{SpiffeId: "spiffe://example.org/a", Hint: "internal"}, {SpiffeId: "spiffe://example.org/b"}} {
			svid := got.Svids[i]
			if svid.SpiffeId != want.SpiffeId || svid.Hint != want.Hint {
				t.Errorf("SVID %d: %s, hint %q", i, svid.SpiffeId, svid.Hint)
			}
			if valid, err := w.validate(ctx, svid.Svid, "shop"); err != nil || valid.SpiffeId != want.SpiffeId {
				t.Errorf("validated: %v, %v", valid, err)
			}
		}
		one, err := w.fetch(ctx, "spiffe://example.org/b", "shop")
		if err != nil || len(one.Svids) != 1 || one.Svids[0].Svid != got.Svids[1].Svid {
			t.Errorf("one: %v, %v", one, err)
		}
		_, err = w.fetch(ctx, "")
		wantStatus(t, "no audience", err, codes.InvalidArgument, "audience must be specified")
		_, err = w.fetch(ctx, "", "")
		wantStatus(t, "empty audience", err, codes.InvalidArgument, "audience must be specified")
		_, err = w.fetch(ctx, "", strings.Repeat("x", 1<<20))
		wantStatus(t, "huge audience", err, codes.InvalidArgument, "too many audiences")
		_, err = w.fetch(ctx, "spiffe://example.org/"+strings.Repeat("a", 2048), "shop")
		wantStatus(t, "long ID", err, codes.InvalidArgument, "invalid requested SPIFFE ID")
		_, err = w.fetch(ctx, "web", "shop")
		wantStatus(t, "odd ID", err, codes.InvalidArgument, "invalid requested SPIFFE ID")
		_, err = w.fetch(ctx, "spiffe://example.org/c", "shop")
		wantStatus(t, "another's ID", err, codes.PermissionDenied, "no identity issued")
		w.caller.become("2", nil)
		_, err = w.fetch(ctx, "", "shop")
		wantStatus(t, "nobody", err, codes.PermissionDenied, "no identity issued")
		w.caller.become("1", errors.New("gone"))
		_, err = w.fetch(ctx, "", "shop")
		wantStatus(t, "not attested", err, codes.Unavailable, "could not be attested")
	})
}

func TestFetchJWTSVIDWithoutTheIssuer(t *testing.T) {
	inJWTWorld(t, func(t *testing.T, w *jwtWorld) {
		w.sync()
		for reason, want := range map[error]codes.Code{
			status.Error(codes.Unavailable, "connection refused"):              codes.Unavailable,
			status.Error(codes.NotFound, "entry not found"):                    codes.Unavailable,
			status.Error(codes.PermissionDenied, "agent is banned"):            codes.Unavailable,
			status.Error(codes.Unimplemented, "JWT functionality is disabled"): codes.Unimplemented,
			errors.New("x"): codes.Unavailable,
		} {
			w.issuer.refuse(reason)
			began := time.Now()
			_, err := w.fetch(t.Context(), "", "shop")
			wantStatus(t, reason.Error(), err, want, "could not fetch JWT-SVID")
			if time.Since(began) > 5*time.Second {
				t.Errorf("%v: after %s", reason, time.Since(began))
			}
		}
		w.issuer.refuse(nil)
		before, err := w.fetch(t.Context(), "", "shop")
		if err != nil {
			t.Fatal(err)
		}
		w.issuer.refuse(status.Error(codes.Unavailable, "connection refused"))
		time.Sleep(40 * time.Second)
		after, err := w.fetch(t.Context(), "", "shop")
		if err != nil || after.Svids[0].Svid != before.Svids[0].Svid {
			t.Errorf("what there is: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = w.fetch(ctx, "", "bank")
		wantStatus(t, "who does not wait", err, codes.DeadlineExceeded, "")
	})
}

// As jwtsvid's test of the same name, of what callers meet: a real second later is too late.
func TestGuardJWTExpiryHasNoLeewayAtTheWorkloadAPI(t *testing.T) {
	inJWTWorld(t, func(t *testing.T, w *jwtWorld) {
		w.sync()
		got, err := w.fetch(t.Context(), "", "shop")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute - time.Second)
		if _, err := w.validate(t.Context(), got.Svids[0].Svid, "shop"); err != nil {
			t.Errorf("a second before its end: %v", err)
		}
		time.Sleep(time.Second)
		_, err = w.validate(t.Context(), got.Svids[0].Svid, "shop")
		wantStatus(t, "at its end", err, codes.InvalidArgument, "token has expired")
		time.Sleep(time.Second)
		_, err = w.validate(t.Context(), got.Svids[0].Svid, "shop")
		wantStatus(t, "a second after its end", err, codes.InvalidArgument, "token has expired")
	})
}

func TestValidateJWTSVID(t *testing.T) {
	inJWTWorld(t, func(t *testing.T, w *jwtWorld) {
		ctx := t.Context()
		sign := func(a *jwttest.Authority, path string) string {
			claims := jwttest.Claims("spiffe://"+a.TrustDomain.Name()+path, time.Now(), time.Minute, "shop")
			claims["email"], claims["role"] = "a@b", "admin"
			return a.MustSign(t, claims)
		}
		ours, theirs := sign(w.issuer.a, "/a"), sign(w.other, "/x")
		_, err := w.validate(ctx, ours, "shop")
		wantStatus(t, "not synced", err, codes.Unavailable, "not synced")
		w.sync()
		want := map[string]any{
			"sub": "spiffe://example.org/a", "aud": []any{"shop"}, "iat": float64(time.Now().Unix()),
			"exp": float64(time.Now().Add(time.Minute).Unix()), "email": "a@b", "role": "admin",
		}
		for token, id := range map[string]string{ours: "spiffe://example.org/a", theirs: "spiffe://other.org/x"} {
			got, err := w.validate(ctx, token, "shop")
			if err != nil {
				t.Fatal(err)
			}
			if token == theirs {
				delete(want, "iat")
				delete(want, "role")
			}
			want["sub"] = id
			if diff := cmp.Diff(want, got.Claims.AsMap()); diff != "" || got.SpiffeId != id {
				t.Errorf("%s: %s", got.SpiffeId, diff)
			}
			want["iat"], want["role"] = float64(time.Now().Unix()), "admin"
		}
		_, err = w.validate(ctx, "", "shop")
		wantStatus(t, "no token", err, codes.InvalidArgument, "svid must be specified")
		_, err = w.validate(ctx, ours, "")
		wantStatus(t, "no audience", err, codes.InvalidArgument, "audience must be specified")
		_, err = w.validate(ctx, ours, "bank")
		wantStatus(t, "another audience", err, codes.InvalidArgument, "expected audience")
		w.caller.become("2", nil)
		if _, err = w.validate(ctx, ours, "shop"); err != nil {
			t.Errorf("without an identity: %v", err)
		}
		_, err = w.validate(ctx, theirs, "shop")
		wantStatus(t, "without an identity, foreign", err, codes.InvalidArgument, "no keys found")
		w.caller.become("1", errors.New("gone"))
		_, err = w.validate(ctx, ours, "shop")
		wantStatus(t, "not attested", err, codes.Unavailable, "could not be attested")
		w.caller.become("1", nil)
		w.state.JWT = map[spiffeid.TrustDomain]*jwtsvid.Bundle{w.issuer.a.TrustDomain: jwttest.New(t, "example.org", "k2").Bundle()}
		w.sync()
		_, err = w.validate(ctx, ours, "shop")
		wantStatus(t, "a key that is no more", err, codes.InvalidArgument, "public key")
		_, err = w.validate(ctx, theirs, "shop")
		wantStatus(t, "a federation that is no more", err, codes.InvalidArgument, "no keys found")
	})
}
