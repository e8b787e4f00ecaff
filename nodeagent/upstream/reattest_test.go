package upstream_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
)

// An agent attests again for as long as it lives. Whoever has the key of an
// authority that was revoked since the agent was configured must not be taken for
// the issuer then: the evidence could be handed on for another's SVID.
func TestGuardAttestsAgainToATrustedIssuerOnly(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := enrolled(t, s, "first-token", time.Hour) // at half its life
	makeReattestable(t, dir)
	cfg := popConfig(t, s, dir)
	revoked := testca.New(t, "example.org")
	configured := x509bundle.FromX509Authorities(s.CA.TrustDomain, append(s.CA.Bundle().X509Authorities(), revoked.Bundle().X509Authorities()...))
	cfg.TrustBundle = configured
	failed := newSignal("cannot renew the agent's SVID yet")
	cfg.Log = slog.New(slog.NewTextHandler(failed, nil))
	s.Stop()
	trusted := impersonate(t, s.Addr, revoked)
	start(t, cfg)
	select {
	case <-failed.seen:
	case <-trusted:
		t.Error("the agent took the owner of a revoked authority for its issuer")
	case <-time.After(time.Minute):
		t.Error("the agent did not attest again in a minute")
	}
}

func makeReattestable(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "agent-data.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var data map[string]any
	if err := json.Unmarshal(text, &data); err != nil {
		t.Fatal(err)
	}
	data["reattestable"] = true
	if text, err = json.Marshal(data); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, text)
}

// impersonate listens as an issuer with an SVID of ca, and tells when a client
// trusts it.
func impersonate(t *testing.T, addr string, ca *testca.CA) <-chan struct{} {
	t.Helper()
	svid := ca.SVID(t, "spiffe://example.org/spire/server")
	l, err := tls.Listen("tcp", addr, &tls.Config{NextProtos: []string{"h2"}, Certificates: []tls.Certificate{{
		Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	trusted := make(chan struct{}, 1)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { shakeHands(t.Context(), conn, trusted) })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return trusted
}

func shakeHands(ctx context.Context, conn net.Conn, trusted chan<- struct{}) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if conn.(*tls.Conn).HandshakeContext(ctx) != nil {
		return
	}
	select {
	case trusted <- struct{}{}:
	default:
	}
}

// signal is a log that is watched for a message.
type signal struct {
	message string
	once    sync.Once
	seen    chan struct{}
}

func newSignal(message string) *signal { return &signal{message: message, seen: make(chan struct{})} }

func (s *signal) Write(line []byte) (int, error) {
	if strings.Contains(string(line), s.message) {
		s.once.Do(func() { close(s.seen) })
	}
	return len(line), nil
}
