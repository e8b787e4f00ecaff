package workloadapi

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

func TestCodecPassesEncodedMessages(t *testing.T) {
	codec := NewCodec()
	msg := &workloadpb.X509BundlesResponse{Crl: [][]byte{{1, 2, 3}}}
	want, err := proto.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{"encoded": encoded(want), "message": msg} {
		got, err := codec.Marshal(v)
		if err != nil || !bytes.Equal(got.Materialize(), want) {
			t.Errorf("%s: %x, %v", name, got.Materialize(), err)
		}
	}
	shared, err := codec.Marshal(encoded(want))
	if err != nil {
		t.Fatal(err)
	}
	if &shared[0].ReadOnlyData()[0] != &want[0] {
		t.Error("the message was copied")
	}
	shared.Free()
	if codec.Name() != "proto" {
		t.Errorf("codec %q", codec.Name())
	}
}

// caller is an Attestor of one process, which may become another program.
type caller struct {
	mu     sync.Mutex
	result workloadattest.Result
	err    error
	times  int
}

func (c *caller) AttestContext(context.Context) (workloadattest.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times++
	return c.result, c.err
}

func (c *caller) become(uid string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result, c.err = workloadattest.Result{Selectors: []registration.Selector{{Type: "unix", Value: "uid:" + uid}}}, err
}

func (c *caller) is(r workloadattest.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result, c.err = r, nil
}

// asked is how often it was attested.
func (c *caller) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.times
}

// svc is a service and the authority of its issuer.
type svc struct {
	*Service
	ca *testca.CA
}

// apply has the issuer's word on which entries there are.
func (s *svc) apply(t *testing.T, entries ...registration.Entry) {
	t.Helper()
	s.cfg.Cache.Apply(upstream.Update{Whole: true, Bundle: s.ca.Bundle(), Entries: entries})
}

type signer struct {
	t  *testing.T
	ca *testca.CA
}

func (s signer) SignX509SVIDs(_ context.Context, reqs []upstream.CSR) ([]upstream.Signed, error) {
	var signed []upstream.Signed
	for _, r := range reqs {
		csr, err := x509.ParseCertificateRequest(r.DER)
		if err != nil {
			return signed, err
		}
		cert := s.ca.Sign(s.t, "spiffe://example.org/"+r.EntryID, csr.PublicKey)
		signed = append(signed, upstream.Signed{Chain: []*x509.Certificate{cert}})
	}
	return signed, nil
}

// inService runs test with a service in a bubble of its own clock. There are an
// entry "1" for uid 1 and an entry "2" for uid 2.
func inService(t *testing.T, test func(t *testing.T, s *svc, c *caller, apply func(ids ...string), log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, "example.org")
		cache := svidcache.New(svidcache.Config{TrustDomain: ca.TrustDomain, Signer: signer{t, ca}})
		who := new(caller)
		who.become("1", nil)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { cache.Run(ctx) })
		defer running.Wait()
		defer cancel()
		var log bytes.Buffer
		s := New(Config{Attestor: who, Cache: cache, Stopping: ctx, Log: slog.New(slog.NewTextHandler(&log, nil))})
		test(t, &svc{Service: s, ca: ca}, who, func(ids ...string) {
			state := upstream.Update{Whole: true, Bundle: ca.Bundle()}
			for _, id := range ids {
				state.Entries = append(state.Entries, registration.Entry{
					ID: id, SPIFFEID: spiffeid.RequireFromPath(ca.TrustDomain, "/"+id),
					Selectors: []registration.Selector{{Type: "unix", Value: "uid:" + id}},
				})
			}
			cache.Apply(state)
		}, &log)
	})
}

var errEnough = errors.New("enough")

// A process keeps its stream over execve; what it gets next is what it is then.
func TestCallerIsAttestedAnewBeforeEachPush(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, apply func(...string), _ *bytes.Buffer) {
		apply("1", "2")
		var got []string
		err := s.WatchX509Context(t.Context(), func(ctx *workload.X509Context) error {
			got = append(got, ctx.Default().ID.Path())
			if len(got) == 2 {
				return errEnough
			}
			c.become("2", nil)
			return nil
		})
		if !errors.Is(err, errEnough) || strings.Join(got, " ") != "/1 /2" {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestStatuses(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, apply func(...string), _ *bytes.Buffer) {
		watch := func(ctx context.Context) error {
			return s.WatchX509Context(ctx, func(*workload.X509Context) error { return errEnough })
		}
		check := func(what string, err error, want codes.Code) {
			t.Helper()
			if status.Code(err) != want {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
		check("not synced", watch(t.Context()), codes.Unavailable)
		apply("1")
		c.become("3", nil)
		check("no identity", watch(t.Context()), codes.PermissionDenied)
		c.become("1", errors.New("no such process"))
		check("not attested", watch(t.Context()), codes.Unavailable)
		c.become("1", nil)
		ended, cancel := context.WithCancel(t.Context())
		check("the caller went", s.WatchX509Context(ended, func(*workload.X509Context) error { cancel(); return nil }), codes.Canceled)
	})
}

func TestRefusalsAreExplainedOnceInAWhile(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, apply func(...string), log *bytes.Buffer) {
		apply("1")
		explained := func() int { return strings.Count(log.String(), "no identity issued") }
		refuse := func(uid string) {
			c.become(uid, nil)
			s.WatchX509Context(t.Context(), func(*workload.X509Context) error { return errEnough })
		}
		refuse("3")
		refuse("3")
		if n := explained(); n != 1 {
			t.Errorf("explained %d times at once", n)
		}
		refuse("4")
		if n := explained(); n != 2 {
			t.Errorf("another caller: explained %d times", n)
		}
		time.Sleep(quiet)
		refuse("3")
		if n := explained(); n != 3 {
			t.Errorf("later: explained %d times", n)
		}
	})
}
