package upstream_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

func both(a, b *spiretest.Server) func(*upstream.Config) {
	return func(cfg *upstream.Config) { cfg.ServerAddresses = []string{a.Addr, b.Addr} }
}

// Each of two issuers is killed in turn, and nothing that changes meanwhile is
// missed or told all anew.
func TestGoesOnAtTheOtherIssuer(t *testing.T) {
	for _, push := range []bool{true, false} {
		t.Run(map[bool]string{true: "pushed", false: "polled"}[push], func(t *testing.T) {
			first := spiretest.New(t, "example.org")
			second := first.Twin()
			if !push {
				pollOnly(first)
				pollOnly(second)
			}
			first.Put(entry(first, "tok", "a"))
			a := pushed(t, first, both(first, second), func(cfg *upstream.Config) { cfg.SyncInterval = 20 * time.Millisecond })
			a.await("the first state", has("a"))
			if n := second.Calls("AttestAgent") + second.Calls("Watch") + second.Calls("SyncAuthorizedEntries"); n != 0 {
				t.Error("the second issuer was asked while the first was there")
			}
			first.Stop()
			first.Put(entry(first, "tok", "b"))
			a.await("the second issuer", has("a", "b"))
			if c := a.Contact(); c.Address != second.Addr || c.Err != nil || c.Push != push {
				t.Errorf("contact %+v", c)
			}
			if _, err := a.SignX509SVIDs(t.Context(), nil); err != nil {
				t.Error(err)
			}
			first.Start()
			second.Stop()
			first.Delete("a")
			a.await("the first issuer again", has("b"))
			a.stop()
			if a.running.Wait(); a.whole != 1 {
				t.Errorf("%d updates were whole", a.whole)
			}
		})
	}
}

// A single call finds the issuer that is there, and the stream follows it.
func TestCallsFindTheIssuerThatWorks(t *testing.T) {
	first := spiretest.New(t, "example.org")
	second := first.Twin()
	a := pushed(t, first, both(first, second))
	a.synced()
	a.drain()
	first.Set(func(sw *spiretest.Switches) { sw.Fail = status.Error(codes.Unavailable, "no quorum") })
	if _, err := a.NewJWTSVID(t.Context(), "none", []string{"aud"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("%v", err)
	}
	second.Await("the stream at the second", func() bool { return second.Calls("Watch") == 1 })
}

func TestAllIssuersAwayAreNamed(t *testing.T) {
	first := spiretest.New(t, "example.org")
	second := first.Twin()
	a := pushed(t, first, both(first, second))
	a.synced()
	a.drain()
	first.Stop()
	second.Stop()
	_, err := a.NewJWTSVID(t.Context(), "none", []string{"aud"})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), first.Addr) || !strings.Contains(err.Error(), second.Addr) {
		t.Errorf("%v", err)
	}
}

// A server that isn't verified is passed by, and sees no token.
func TestJoinsAtTheIssuerThatIsVerified(t *testing.T) {
	s, stranger := spiretest.New(t, "example.org"), spiretest.New(t, "example.org")
	a := pushed(t, s, both(stranger, s))
	a.synced()
	if n := stranger.Calls("AttestAgent"); n != 0 {
		t.Error("the token was shown to a server that is not verified")
	}
}

func TestReturnsToTheFirstIssuer(t *testing.T) {
	first := spiretest.New(t, "example.org")
	second := first.Twin()
	first.Stop()
	cfg := config(first, t.TempDir(), first.Token("tok", time.Hour))
	cfg.ServerAddresses = []string{first.Addr, second.Addr}
	a := startWith(t, cfg, func(c *upstream.Client) { c.Hurry(time.Minute, 50*time.Millisecond) })
	a.synced()
	a.drain()
	if c := a.Contact(); c.Address != second.Addr {
		t.Errorf("contact %+v", c)
	}
	first.Start()
	first.Await("the stream at the first", func() bool { return first.Calls("Watch") == 1 })
}

// An issuer that has not heard yet of an agent that joined at another says that it
// knows no such agent. The agent must not believe it at once: its token is spent.
func TestGuardAFollowerThatIsLate(t *testing.T) {
	s := spiretest.New(t, "example.org")
	a := pushed(t, s)
	a.synced()
	svid, err := a.Own().SVID()
	if err != nil {
		t.Fatal(err)
	}
	s.Evict(svid.ID)
	s.Await("a stream that was denied", func() bool { return s.Calls("Watch") >= 2 })
	s.Enroll("tok", svid)
	s.Put(entry(s, "tok", "a"))
	a.await("the stream again", has("a"))
	a.stop()
	if n := s.Calls("AttestAgent"); n != 1 {
		t.Errorf("joined %d times", n)
	}
}

// A tainted authority's SVID is replaced at once, though it is new.
func TestTaintRenewsTheAgentsOwnSVID(t *testing.T) {
	s := spiretest.New(t, "example.org")
	a := pushed(t, s, func(cfg *upstream.Config) { cfg.SyncInterval = 20 * time.Millisecond })
	a.synced()
	a.drain()
	s.SignWith(s.AddAuthority())
	s.Taint(s.CA.Cert)
	s.Await("a renewal", func() bool { return s.Calls("RenewAgent") == 1 })
}
