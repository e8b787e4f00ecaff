package upstream_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

func TestOutlastsARestartOfTheIssuer(t *testing.T) {
	s := spiretest.New(t, "example.org")
	a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
	a.synced()
	s.Stop()
	s.Put(entry(s, "tok", "later"))
	s.Start()
	a.await("what changed meanwhile", func(state upstream.Update) bool { return len(state.Entries) == 1 })
}

// SPIRE's server ends each connection after three minutes.
func TestOutlastsTheEndOfConnections(t *testing.T) {
	s := spiretest.New(t, "example.org")
	pollOnly(s)
	s.Stop()
	s.Set(func(sw *spiretest.Switches) { sw.MaxConnectionAge = 30 * time.Millisecond })
	s.Start()
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	cfg.SyncInterval = 5 * time.Millisecond
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	a := start(t, cfg)
	for range 50 {
		a.synced()
	}
	a.stop()
	a.running.Wait()
	if strings.Contains(log.String(), "cannot sync") {
		t.Errorf("a sync failed:\n%s", &log)
	}
}

func TestStartsBeforeTheIssuer(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Stop()
	a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
	s.Start()
	a.synced()
}

func TestFederatedBundles(t *testing.T) {
	s := spiretest.New(t, "example.org")
	known, unknown := testca.New(t, "known.org"), spiffeid.RequireTrustDomainFromString("unknown.org")
	s.Federate(known.Bundle())
	e := entry(s, "tok", "a")
	e.FederatesWith = []spiffeid.TrustDomain{known.TrustDomain, unknown}
	s.Put(e)
	state := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour))).synced()
	if len(state.Federated) != 1 || !state.Federated[known.TrustDomain].Equal(known.Bundle()) {
		t.Errorf("federated: %v", state.Federated)
	}
}

func TestBundleChangesAreKept(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := t.TempDir()
	a := start(t, config(s, dir, s.Token("tok", time.Hour)))
	a.synced()
	s.AddAuthority()
	a.await("the new authority", func(state upstream.Update) bool { return len(state.Bundle.X509Authorities()) == 2 })
	a.stop()
	b, err := os.ReadFile(filepath.Join(dir, "agent-data.json"))
	if err != nil {
		t.Fatal(err)
	}
	var data struct{ Bundle [][]byte }
	if err := json.Unmarshal(b, &data); err != nil || len(data.Bundle) != 2 {
		t.Errorf("%d authorities on disk, %v", len(data.Bundle), err)
	}
}
