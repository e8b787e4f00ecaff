package upstream_test

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// source is what the configuration says from one time to the next.
type source struct {
	mu    sync.Mutex
	now   *x509bundle.Bundle // nil: it cannot be had
	asked chan struct{}      // holds one
}

func (s *source) Bundle(context.Context) (*x509bundle.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.asked <- struct{}{}:
	default:
	}
	if s.now == nil {
		return nil, errors.New("not just now")
	}
	return s.now, nil
}

func (s *source) set(b *x509bundle.Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = b
	select {
	case <-s.asked:
	default:
	}
}

// rebuilt starts an agent of an issuer, which is then another's: same address, same
// trust domain, other authorities.
func rebuilt(t *testing.T, mode string) (a *agent, next *spiretest.Server, src *source) {
	t.Helper()
	s := spiretest.New(t, "example.org")
	src = &source{now: s.CA.Bundle(), asked: make(chan struct{}, 1)}
	cfg := popConfig(t, s, t.TempDir())
	cfg.TrustBundle, cfg.TrustSource = nil, src
	cfg.Rebootstrap = upstream.Rebootstrap{Mode: mode, Delay: 100 * time.Millisecond}
	a = start(t, cfg)
	a.synced()
	a.drain()
	s.Stop()
	next = spiretest.New(t, "example.org")
	next.Stop()
	next.Addr = s.Addr
	src.set(s.CA.Bundle())
	return a, next, src
}

// An agent whose issuer has other authorities than it knows begins anew with the
// configured bundle, once that has the new ones; until then it has lost nothing.
func TestBeginsAnew(t *testing.T) {
	for _, mode := range []string{upstream.RebootstrapAuto, upstream.RebootstrapAlways} {
		t.Run(mode, func(t *testing.T) {
			a, next, src := rebuilt(t, mode)
			before := a.ID()
			next.Start()
			<-src.asked // the delay is over
			if n := next.Calls("AttestAgent"); n != 0 || a.ID() != before {
				t.Errorf("attested %d times to an issuer that nothing verifies; agent is %s", n, a.ID())
			}
			src.set(next.CA.Bundle())
			next.Await("the agent, begun anew", func() bool { return next.Calls("Watch") > 0 })
			if n := next.Calls("AttestAgent"); n != 1 {
				t.Errorf("attested %d times", n)
			}
			_, err := a.Own().Bundle(next.CA.TrustDomain)
			bundle, _ := a.Own().Bundle(next.CA.TrustDomain)
			if err != nil || !bundle.Equal(next.CA.Bundle()) {
				t.Errorf("bundle %v, %v", bundle, err)
			}
		})
	}
}

func TestGuardNeverBeginsAnewByItself(t *testing.T) {
	a, next, src := rebuilt(t, upstream.RebootstrapNever)
	src.set(next.CA.Bundle())
	next.Start()
	for a.Contact().Err == nil {
		// The next attempts fail too; two are known to have once there is an error.
		if err := a.ctx.Err(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-src.asked:
			t.Fatal("the configured bundle was asked for")
		case <-time.After(time.Millisecond):
		}
	}
	if n := next.Calls("AttestAgent"); n != 0 {
		t.Errorf("attested %d times", n)
	}
}

func TestRebootstrapAlwaysNeedsAnAttestorThatCan(t *testing.T) {
	s := spiretest.New(t, "example.org")
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	cfg.Rebootstrap.Mode = upstream.RebootstrapAlways
	if _, err := upstream.Open(cfg); err == nil || !strings.Contains(err.Error(), "rebootstrap_mode is always") {
		t.Errorf("opened: %v", err)
	}
	s.Set(func(sw *spiretest.Switches) { sw.NotReattestable = true })
	cfg = popConfig(t, s, t.TempDir())
	cfg.Rebootstrap.Mode = upstream.RebootstrapAlways
	if err := start(t, cfg).end(); err == nil || !strings.Contains(err.Error(), "does not let this agent attest anew") {
		t.Errorf("ended with %v", err)
	}
}

func TestConfigurationsThatCannotWork(t *testing.T) {
	s := spiretest.New(t, "example.org")
	for want, change := range map[string]func(*upstream.Config){
		`rebootstrap_mode "sometimes"`:               func(cfg *upstream.Config) { cfg.Rebootstrap.Mode = "sometimes" },
		"availability_target 1h0m0s is shorter than": func(cfg *upstream.Config) { cfg.AvailabilityTarget = time.Hour },
		"two trust bundles":                          func(cfg *upstream.Config) { cfg.TrustSource = &source{} },
		"there is no trust bundle to begin anew with": func(cfg *upstream.Config) {
			cfg.TrustBundle, cfg.InsecureBootstrap, cfg.Rebootstrap.Mode = nil, true, upstream.RebootstrapAlways
		},
	} {
		cfg := popConfig(t, s, t.TempDir())
		change(&cfg)
		if _, err := upstream.Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestJoinsOnceTheBundleCanBeHad(t *testing.T) {
	s := spiretest.New(t, "example.org")
	src := &source{asked: make(chan struct{}, 1)}
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	cfg.TrustBundle, cfg.TrustSource = nil, src
	a := start(t, cfg)
	<-src.asked
	src.set(spiretest.New(t, "example.org").CA.Bundle()) // of another
	<-src.asked
	src.set(s.CA.Bundle())
	a.synced()
}

func TestKeysInMemoryAlone(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := t.TempDir()
	cfg := popConfig(t, s, dir)
	cfg.MemoryKeys = true
	for n := 1; n <= 2; n++ {
		a := start(t, cfg)
		a.synced()
		a.stop()
		if got := s.Calls("AttestAgent"); got != n {
			t.Errorf("attested %d times in %d runs", got, n)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "keys.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("keys.json: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "agent-data.json"))
	if err != nil || !strings.Contains(string(data), `"svid":null`) {
		t.Errorf("%s, %v", data, err)
	}
	// A token is good for one start.
	dir = t.TempDir()
	cfg = config(s, dir, s.Token("tok", time.Hour))
	cfg.MemoryKeys = true
	a := start(t, cfg)
	a.synced()
	a.stop()
	cfg = config(s, dir, "")
	cfg.MemoryKeys = true
	if _, err := upstream.Open(cfg); !errors.Is(err, upstream.ErrNoIdentity) || !strings.Contains(err.Error(), "KeyManager memory") {
		t.Errorf("opened: %v", err)
	}
}

func TestRequiresThePostQuantumKeyExchange(t *testing.T) {
	s := spiretest.New(t, "example.org")
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	cfg.RequirePQKEM = true
	start(t, cfg).synced()

	old := spiretest.New(t, "example.org")
	old.Stop()
	old.Set(func(sw *spiretest.Switches) { sw.Curves = []tls.CurveID{tls.X25519} })
	old.Start()
	cfg = config(old, t.TempDir(), old.Token("tok", time.Hour))
	cfg.RequirePQKEM = true
	log := newSignal("require_pq_kem")
	cfg.Log = logTo(log)
	start(t, cfg)
	<-log.seen
	if n := old.Calls("AttestAgent"); n != 0 {
		t.Error("joined without")
	}
}

func TestEntriesWithoutTheSync(t *testing.T) {
	s := spiretest.New(t, "example.org")
	pollOnly(s)
	s.Put(entry(s, "tok", "a"))
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	cfg.UseSync = new(bool)
	a := start(t, cfg)
	a.await("the list", has("a"))
	if u := a.synced(); u.Whole {
		t.Error("nothing changed, and everything was handed on")
	}
	s.Put(entry(s, "tok", "b"))
	a.await("a change", has("a", "b"))
	if n := s.Calls("SyncAuthorizedEntries"); n != 0 {
		t.Errorf("used %d times", n)
	}
}
