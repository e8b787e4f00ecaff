package workloadapi

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/workload"
)

func TestBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuckets(5)
		taken := func(key uint64) (n int) {
			for b.take(key, time.Now()) {
				n++
			}
			return n
		}
		if n, other := taken(1), taken(2); n != 5 || other != 5 {
			t.Errorf("%d and %d at once, want 5 each", n, other)
		}
		time.Sleep(400 * time.Millisecond)
		if n := taken(1); n != 2 {
			t.Errorf("%d after 0.4 s, want 2", n)
		}
		time.Sleep(time.Hour)
		if n := taken(1); n != 5 {
			t.Errorf("%d after an hour, want 5", n)
		}
		// What is remembered of others is bounded, and makes no room for more.
		for key := range uint64(3 * maxBuckets) {
			b.take(key+10, time.Now())
		}
		if n := len(b.young) + len(b.old); n > 2*maxBuckets {
			t.Errorf("%d buckets", n)
		}
		if n := taken(1); n != 0 {
			t.Errorf("%d more after a crowd", n)
		}
		if n := taken(1 << 60); n > 0 {
			t.Errorf("a newcomer takes %d of what the crowd shares", n)
		}
	})
}

func TestRateLimits(t *testing.T) {
	inJWTWorld(t, func(t *testing.T, w *jwtWorld) {
		w.sync()
		w.limits = newLimits(map[string]int{"fetch_jwt_svid": 2, "fetch_x509_svid": 0, "stream_secrets": 1}, slog.New(slog.DiscardHandler))
		for range 2 {
			if _, err := w.fetch(t.Context(), "", "shop"); err != nil {
				t.Fatal(err)
			}
		}
		_, err := w.fetch(t.Context(), "", "shop")
		wantStatus(t, "a third call", err, codes.Unavailable, "rate limit exceeded for /SpiffeWorkloadAPI/FetchJWTSVID")
		w.caller.become("2", nil)
		_, err = w.fetch(t.Context(), "", "shop")
		wantStatus(t, "another caller's", err, codes.PermissionDenied, "no identity issued")
		// Envoy's streams of both kinds share a limit, which the service behind doesn't know of.
		handler := func(any, grpc.ServerStream) error { return nil }
		call := func(method string) error {
			return w.StreamInterceptor(nil, &fakeStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: "/envoy.service.secret.v3.SecretDiscoveryService/" + method}, handler)
		}
		if err := call("StreamSecrets"); err != nil {
			t.Error(err)
		}
		wantStatus(t, "delta", call("DeltaSecrets"), codes.Unavailable, "rate limit exceeded for /envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets")
		for range 9 {
			if err := call("FetchSecrets"); err != nil {
				t.Errorf("no limit: %v", err)
			}
		}
		time.Sleep(time.Second)
		if err := call("DeltaSecrets"); err != nil {
			t.Errorf("a second later: %v", err)
		}
	})
}

type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func TestEachRateLimitIsOfAMethod(t *testing.T) {
	for _, name := range []string{"fetch_x509_svid", "fetch_jwt_svid", "fetch_x509_bundles", "fetch_jwt_bundles", "stream_secrets", "fetch_secrets"} {
		if len(limitedMethods(name)) == 0 {
			t.Errorf("%s limits nothing", name)
		}
	}
}

func TestInterceptors(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, apply func(ids ...string), _ *bytes.Buffer) {
		type call struct{ method, code string }
		var calls []call
		s.cfg.Call = func(method, code string, _ time.Duration) { calls = append(calls, call{method, code}) }
		ran := 0
		unary := func(ctx context.Context, method string) error {
			_, err := s.UnaryInterceptor(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) {
				ran++
				return nil, nil
			})
			return err
		}
		with := func(values ...string) context.Context {
			return metadata.NewIncomingContext(t.Context(), metadata.MD{"workload.spiffe.io": values})
		}
		for _, ctx := range []context.Context{t.Context(), with(), with("false"), with("True"), with("true", "true")} {
			wantStatus(t, "without the header", unary(ctx, "/SpiffeWorkloadAPI/FetchJWTSVID"), codes.InvalidArgument, "security header missing from request")
			err := s.StreamInterceptor(nil, &fakeStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: "/SpiffeWorkloadAPI/FetchWITSVID"}, func(any, grpc.ServerStream) error {
				ran++
				return nil
			})
			wantStatus(t, "a stream", err, codes.InvalidArgument, "security header missing from request")
		}
		if ran > 0 {
			t.Error("a method ran without the header")
		}
		for _, err := range []error{unary(with("true"), "/SpiffeWorkloadAPI/FetchJWTSVID"), unary(t.Context(), "/grpc.health.v1.Health/Check")} {
			if err != nil {
				t.Error(err)
			}
		}
		if len(calls) != 12 || calls[0] != (call{"/SpiffeWorkloadAPI/FetchJWTSVID", "InvalidArgument"}) || calls[11] != (call{"/grpc.health.v1.Health/Check", "OK"}) {
			t.Errorf("told of %v", calls)
		}
	})
}

func TestWITsAreUnimplemented(t *testing.T) {
	s := new(Service)
	wantStatus(t, "SVIDs", s.FetchWITSVID(nil, nil), codes.Unimplemented, "not implemented")
	wantStatus(t, "bundles", s.FetchWITBundles(nil, nil), codes.Unimplemented, "not implemented")
}

func TestRefusalsTellNoSecrets(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, _ func(ids ...string), log *bytes.Buffer) {
		s.apply(t, labelled("web", "web"))
		r := docker(nil, "app=other")
		r.Selectors = append(r.Selectors, registration.Selector{Type: "docker", Value: "env:PASSWORD=secret"})
		c.is(r)
		watch := func() {
			s.WatchX509Context(t.Context(), func(*workload.X509Context) error { return errEnough })
		}
		watch()
		for _, want := range []string{
			`why="none of 1 entry fits: the nearest, spiffe://example.org/web (entry web), needs docker:label:web too"`,
			"docker:env:PASSWORD=(hidden)", "unix:uid:1", "missing=docker:label:web",
		} {
			if !bytes.Contains(log.Bytes(), []byte(want)) {
				t.Errorf("no %s in %s", want, log)
			}
		}
		if bytes.Contains(log.Bytes(), []byte("secret")) {
			t.Errorf("the log tells a variable: %s", log)
		}
		log.Reset()
		s.refusal.prefixes = []string{"docker:label"}
		time.Sleep(quiet)
		watch()
		if text := log.String(); !bytes.Contains(log.Bytes(), []byte("selectors=\"docker:label:app=other\"\n")) {
			t.Errorf("with log_selectors: %s", text)
		}
	})
}

// Each explanation reads all entries: a user who can start programs of many kinds must not keep the agent busy.
func TestRefusalsAreBounded(t *testing.T) {
	r := newRefusals(slog.New(slog.DiscardHandler), nil, nil)
	now, explained := time.Now(), 0
	for i := range 10 * maxExplained {
		if _, first := r.first(strconv.Itoa(i), now); first {
			explained++
		}
	}
	if explained != maxExplained || len(r.last) != maxExplained {
		t.Errorf("%d explained, %d remembered", explained, len(r.last))
	}
	silent, first := r.first("late", now.Add(quiet))
	if !first || silent != 9*maxExplained {
		t.Errorf("later: %v, %d not told", first, silent)
	}
}
