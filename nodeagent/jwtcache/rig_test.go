package jwtcache_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// issuer is a Signer with a real key and the clock of the test.
type issuer struct {
	a *jwttest.Authority

	mu    sync.Mutex
	down  error
	hold  chan struct{} // signing waits for it
	life  time.Duration
	other string // an ID signed instead of the entry's
	calls int
}

func (s *issuer) NewJWTSVID(ctx context.Context, entryID string, audience []string) (jwtsvid.Token, error) {
	s.mu.Lock()
	s.calls++
	hold, down, life, id := s.hold, s.down, s.life, "spiffe://example.org/"+entryID
	if s.other != "" {
		id = s.other
	}
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return jwtsvid.Token{}, status.FromContextError(ctx.Err()).Err()
		}
	}
	if down != nil {
		return jwtsvid.Token{}, down
	}
	text, err := s.a.Sign(jwttest.Claims(id, time.Now(), life, audience...))
	if err != nil {
		return jwtsvid.Token{}, err
	}
	return jwtsvid.Inspect(text)
}

func (s *issuer) set(change func(*issuer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *issuer) signed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

var away = status.Error(codes.Unavailable, "connection refused")

// buffer collects a log.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type world struct {
	*jwtcache.Cache
	t      *testing.T
	issuer *issuer
	log    *buffer
}

// inWorld runs test with a cache in a bubble of its own clock; tokens live 5 minutes.
func inWorld(t *testing.T, maxSize int, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, issuer: &issuer{a: jwttest.New(t, "example.org", "k"), life: 5 * time.Minute}, log: new(buffer)}
		log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		w.Cache = jwtcache.New(jwtcache.Config{Signer: w.issuer, MaxSize: maxSize, Log: log})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.Run(ctx) })
		defer running.Wait()
		defer cancel()
		test(t, w)
	})
}

func entry(id string) registration.Entry {
	return registration.Entry{ID: id, SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/" + id)}
}

func (w *world) fetch(id string, audience ...string) jwtsvid.Token {
	w.t.Helper()
	token, err := w.Fetch(w.t.Context(), entry(id), audience)
	if err != nil {
		w.t.Fatalf("%s for %v: %v", id, audience, err)
	}
	if strings.Contains(w.log.String(), token.Text) {
		w.t.Fatalf("a token was logged:\n%s", w.log)
	}
	return token
}

func (w *world) wantSigned(n int, when string) {
	w.t.Helper()
	if got := w.issuer.signed(); got != n {
		w.t.Errorf("%s: signed %d times, want %d", when, got, n)
	}
}
