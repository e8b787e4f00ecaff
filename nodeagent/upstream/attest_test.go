package upstream_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/attest"
)

// keyConfig is of an agent that joins by join_key with the token in a file, if
// there is one.
func keyConfig(t *testing.T, s *spiretest.Server, dir, token string) upstream.Config {
	t.Helper()
	cfg := config(s, dir, "")
	file := filepath.Join(dir, "token")
	writeFile(t, file, []byte(token+"\n"))
	if token == "" {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Attestor = &attest.JoinKey{Dir: dir, Token: attest.Token{File: file}}
	return cfg
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNodeKeyIsEnoughAfterAnyPause(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := t.TempDir()
	a := start(t, keyConfig(t, s, dir, s.Token("first-token", time.Hour)))
	a.synced()
	id := a.ID()
	a.stop()
	info, err := os.Stat(filepath.Join(dir, "node-key.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("node key: %v, %v", info, err)
	}
	writeState(t, s, dir, s.CA.SVID(t, id.String(), testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))))
	// The token's file is gone, and the SVID is over: the key is enough, and still
	// is where all but the key is lost.
	b := start(t, keyConfig(t, s, dir, ""))
	b.synced()
	b.stop()
	for _, name := range []string{"agent-data.json", "keys.json"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	c := start(t, keyConfig(t, s, dir, ""))
	c.synced()
	if b.ID() != id || c.ID() != id {
		t.Errorf("agent %s came back as %s and %s", id, b.ID(), c.ID())
	}
}

func TestLostAnswersToANodeKey(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.LoseJoins = 2 })
	start(t, keyConfig(t, s, t.TempDir(), s.Token("first-token", time.Hour))).synced()
	if n := s.Calls("AttestAgent"); n != 3 {
		t.Errorf("joined in %d attempts, want 3", n)
	}
}

func TestAttestsAgainAtHalfLife(t *testing.T) {
	s := spiretest.New(t, "example.org")
	pollOnly(s)
	s.Set(func(sw *spiretest.Switches) { sw.AgentTTL = 2 * time.Second })
	a := start(t, keyConfig(t, s, t.TempDir(), s.Token("first-token", time.Hour)))
	a.synced()
	a.drain()
	s.Await("the third attestation", func() bool { return s.Calls("AttestAgent") >= 3 })
	calls := s.Calls("SyncAuthorizedEntries")
	s.Await("the next sync", func() bool { return s.Calls("SyncAuthorizedEntries") > calls })
	if n := s.Calls("RenewAgent"); n != 0 {
		t.Errorf("renewed %d times where it was to attest again", n)
	}
}

func TestEvictedNodeNeedsANewToken(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := t.TempDir()
	a := start(t, keyConfig(t, s, dir, s.Token("first-token", time.Hour)))
	a.synced()
	a.drain()
	id := a.ID()
	s.Evict(id)
	if err := a.end(); err == nil || !strings.Contains(err.Error(), "was used already") || !strings.Contains(err.Error(), "token create -method join_key") {
		t.Errorf("ended with %v", err)
	}
	if err := start(t, keyConfig(t, s, dir, "")).end(); err == nil || !strings.Contains(err.Error(), "does not know this node's key, and there is no join token") {
		t.Errorf("ended with %v", err)
	}
	b := start(t, keyConfig(t, s, dir, s.Token("second-token", time.Hour)))
	b.synced()
	if b.ID() != id {
		t.Errorf("came back as %s, not %s", b.ID(), id)
	}
}

func TestBannedNodeStops(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := t.TempDir()
	a := start(t, keyConfig(t, s, dir, s.Token("first-token", time.Hour)))
	a.synced()
	a.drain()
	s.Ban(a.ID())
	if refused, ok := errors.AsType[*upstream.RefusedError](a.end()); !ok || refused.Reason != types.PermissionDeniedDetails_AGENT_BANNED {
		t.Errorf("ended with %v", a.end())
	}
	err := start(t, keyConfig(t, s, dir, s.Token("second-token", time.Hour))).end()
	if err == nil || !strings.Contains(err.Error(), "agent is banned") {
		t.Errorf("ended with %v", err)
	}
}

func TestIssuerWithoutJoinKeySaysSoInALine(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.NoJoinKey = true })
	err := start(t, keyConfig(t, s, t.TempDir(), s.Token("first-token", time.Hour))).end()
	if err == nil || !strings.Contains(err.Error(), "has no node attestation by join_key: Lanyard's issuer has it, a spire-server has not") || strings.Contains(err.Error(), "\n") {
		t.Errorf("ended with %v", err)
	}
}

// popConfig is of an agent that joins by x509pop with a new certificate in dir.
func popConfig(t *testing.T, s *spiretest.Server, dir string) upstream.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	x := attest.X509POP{PrivateKeyPath: filepath.Join(dir, "node.key"), CertificatePath: filepath.Join(dir, "node.crt")}
	writeFile(t, x.PrivateKeyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	writeFile(t, x.CertificatePath, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	cfg := config(s, dir, "")
	cfg.Attestor = x
	return cfg
}

func TestCertificateIsReadAgainEachTime(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.AgentTTL = 2 * time.Second })
	dir := t.TempDir()
	a := start(t, popConfig(t, s, dir))
	a.synced()
	a.drain()
	first := a.ID()
	popConfig(t, s, dir) // a new certificate, and with it another ID
	s.Await("the new certificate", func() bool { return a.ID() != first })
}

// An evicted agent that can prove itself does; one that is refused for now goes on
// trying, since it has workloads to serve.
func TestAgentThatCanProveItselfComesBack(t *testing.T) {
	s := spiretest.New(t, "example.org")
	pollOnly(s)
	a := start(t, popConfig(t, s, t.TempDir()))
	a.synced()
	a.drain()
	s.Set(func(sw *spiretest.Switches) { sw.Refuse = status.Error(codes.PermissionDenied, "not just now") })
	tried := s.Calls("AttestAgent")
	s.Evict(a.ID())
	s.Await("a refusal", func() bool { return s.Calls("AttestAgent") > tried })
	s.Set(func(sw *spiretest.Switches) { sw.Refuse = nil })
	calls := s.Calls("SyncAuthorizedEntries")
	s.Await("a sync", func() bool { return s.Calls("SyncAuthorizedEntries") > calls+1 })
}

func TestMissingFilesAreSaidAtOnce(t *testing.T) {
	s := spiretest.New(t, "example.org")
	cfg := config(s, t.TempDir(), "")
	for want, attestor := range map[string]upstream.Attestor{
		"no-such-key":                  attest.X509POP{PrivateKeyPath: "no-such-key", CertificatePath: "no-such-cert"},
		"no-such-token":                attest.K8sPSAT{Cluster: "c", TokenPath: "no-such-token"},
		"has no key":                   &attest.JoinKey{Dir: cfg.DataDir},
		"no such file":                 &attest.JoinKey{Dir: cfg.DataDir, Token: attest.Token{File: "no-such-file"}},
		upstream.ErrNoIdentity.Error(): attest.JoinToken{},
	} {
		cfg.Attestor = attestor
		if _, err := upstream.Open(cfg); err == nil || !strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), "no-such-cert") {
			t.Errorf("opened: %v, want %s", err, want)
		}
	}
}

// A damaged key is not replaced: the node would become another agent.
func TestDamagedNodeKeyStays(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := t.TempDir()
	path := filepath.Join(dir, "node-key.pem")
	writeFile(t, path, []byte("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"))
	err := start(t, keyConfig(t, s, dir, s.Token("first-token", time.Hour))).end()
	if err == nil || !strings.Contains(err.Error(), path+" is damaged") || strings.Contains(err.Error(), "c2VjcmV0") {
		t.Errorf("ended with %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "c2VjcmV0") {
		t.Errorf("the file was changed: %v", err)
	}
}
