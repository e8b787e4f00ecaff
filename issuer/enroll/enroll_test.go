package enroll_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const hour = time.Hour

// newUnloadedRig returns a rig whose CA is not loaded yet.
func newUnloadedRig(t testing.TB, configure ...func(*enroll.Config)) *rig {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store"), TrustDomain: td})
	must(t, err)
	t.Cleanup(func() { must(t, st.Close()) })
	reg := registry.New(st, nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		reg.Run(t.Context()) // ends with the test's context
	}()
	t.Cleanup(func() { <-ended })
	<-reg.Ready()
	keys, err := ca.OpenKeys(filepath.Join(dir, "keys.json"))
	must(t, err)
	authority := ca.New(ca.Config{TrustDomain: td, Keys: keys, Journal: st})
	cfg := enroll.Config{TrustDomain: td, Store: st, Registry: reg, CA: authority}
	for _, f := range configure {
		f(&cfg)
	}
	return &rig{Enroller: enroll.New(cfg), t: t, store: st, reg: reg, ca: authority}
}

func newEnroller(t *testing.T) (*enroll.Enroller, *ca.Authority) {
	r := newUnloadedRig(t)
	return r.Enroller, r.ca
}

// attempt is one to join with a token of join_token and a key of its own.
func attempt(t testing.TB, token string) enroll.Attempt {
	t.Helper()
	return enroll.Attempt{Method: "join_token", Payload: []byte(token), CSR: newCSR(t, newKey(t))}
}

// TestFailureToSignKeepsToken joins while no authority can sign, and then again.
func TestFailureToSignKeepsToken(t *testing.T) {
	e, authority := newEnroller(t)
	created, err := e.CreateToken(t.Context(), enroll.TokenRequest{TTL: time.Minute})
	must(t, err)
	token := created.Token
	if _, err := e.Attest(t.Context(), attempt(t, token)); !errors.Is(err, ca.ErrNotReady) {
		t.Fatalf("err = %v", err)
	}
	must(t, authority.Load(t.Context()))
	admission, err := e.Attest(t.Context(), attempt(t, token)) // another key, too
	must(t, err)
	if want := "spiffe://lanyard.test/spire/agent/join_token/" + token; admission.ID.String() != want || admission.Reattestable {
		t.Errorf("admission = %+v", admission)
	}
	if _, err := e.Attest(t.Context(), attempt(t, token)); !errors.Is(err, enroll.ErrTokenSpent) {
		t.Errorf("err = %v", err)
	}
}

func TestCreateTokenRefuses(t *testing.T) {
	e, _ := newEnroller(t)
	for name, req := range map[string]enroll.TokenRequest{
		"no life":             {},
		"half a second":       {TTL: time.Second / 2},
		"for ever":            {TTL: 1 << 62},
		"no path segment":     {TTL: time.Minute, Token: "a/b"},
		"agent's own ID":      {TTL: time.Minute, AgentID: spiffeid.RequireFromPath(td, "/spire/agent/x")},
		"foreign agent ID":    {TTL: time.Minute, AgentID: spiffeid.RequireFromString("spiffe://other.test/x")},
		"trust domain itself": {TTL: time.Minute, AgentID: td.ID()},
	} {
		_, err := e.CreateToken(t.Context(), req)
		if !errors.Is(err, enroll.ErrBadRequest) {
			t.Errorf("%s: err = %v", name, err)
		}
		if req.TTL > time.Minute && !strings.Contains(err.Error(), "want 1s to 87600h") {
			t.Errorf("%s: %v does not say the longest life", name, err)
		}
	}
}

func TestTokensDiffer(t *testing.T) {
	e, _ := newEnroller(t)
	one, err := e.CreateToken(t.Context(), enroll.TokenRequest{TTL: time.Minute})
	must(t, err)
	two, err := e.CreateToken(t.Context(), enroll.TokenRequest{TTL: time.Minute})
	must(t, err)
	if len(one.Token) != 36 || one.Token == two.Token {
		t.Errorf("tokens %q and %q", one.Token, two.Token)
	}
}
