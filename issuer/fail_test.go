package issuer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/health"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// TestFailingPartEndsRun takes the store away from a running issuer.
func TestFailingPartEndsRun(t *testing.T) {
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	td := spiffeid.RequireTrustDomainFromString("lanyard.test")
	st, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store"), TrustDomain: td})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ca.OpenKeys(filepath.Join(dir, "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{TrustDomain: td, DataDir: dir, SocketPath: filepath.Join(dir, "api.sock")}.withDefaults()
	closed := make(chan error, 1)
	cfg.Ready = func(Addrs) { closed <- st.Close() }
	p := &parts{cfg: cfg, store: st}
	p.checker = health.New(cfg.Health, cfg.Log, p.checks()...)
	on, err := bind(t.Context(), cfg, p.jwtKeys)
	if err != nil {
		t.Fatal(err)
	}
	err = p.run(t.Context(), on, keys)
	if !errors.Is(err, store.ErrClosed) || strings.Count(err.Error(), "registry") != 1 {
		t.Errorf("run = %v, want once that the registry's store is closed", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
