package enroll_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
)

// fixed is a method that finds the same each time.
type fixed enroll.Evidence

func (f fixed) Attest(_ context.Context, c enroll.Conversation) (enroll.Evidence, error) {
	if string(c.Payload) != "good" {
		return enroll.Evidence{}, enroll.Refused(errors.New("payload is not good"))
	}
	return enroll.Evidence(f), nil
}

func withMethod(name string, m enroll.Method) func(*enroll.Config) {
	return func(cfg *enroll.Config) { cfg.Methods = map[string]enroll.Method{name: m} }
}

func evidence(path string, reattestable bool) fixed {
	return fixed{
		ID: spiffeid.RequireFromPath(td, path), Reattestable: reattestable,
		Selectors: []registration.Selector{{Type: "m", Value: "b"}, {Type: "m", Value: "a"}, {Type: "m", Value: "b"}},
	}
}

// What becomes of an agent that was banned or evicted, or comes again, by each method.
func TestBannedEvictedAndReturningAgents(t *testing.T) {
	for name, m := range map[string]struct {
		method enroll.Method
		// again is what an agent hears that joins once more, and evicted what one
		// hears that was evicted.
		again, evicted error
	}{
		"join_token": {nil, nil, enroll.ErrTokenSpent},
		"join_key":   {nil, nil, enroll.ErrTokenSpent},
		"lasting":    {evidence("/spire/agent/lasting/x", true), nil, nil},
		"once":       {evidence("/spire/agent/once/x", false), enroll.ErrUsed, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, withMethod(name, m.method))
			try := joiner(r, name)
			first, err := r.Attest(t.Context(), try())
			must(t, err)
			_, err = r.Attest(t.Context(), try())
			wantErr(t, "again", err, m.again)

			r.evict(first.ID)
			back, err := r.Attest(t.Context(), try())
			wantErr(t, "evicted", err, m.evicted)
			if err != nil {
				try = joiner(r, name) // with a new token
				back, err = r.Attest(t.Context(), try())
				must(t, err)
			}

			r.ban(back.ID)
			_, err = r.Attest(t.Context(), try())
			wantErr(t, "banned", err, enroll.ErrBanned)
			if name == "join_key" {
				_, err = r.Attest(t.Context(), retoken(r, enroll.TokenRequest{Group: "another"}))
				wantErr(t, "banned, with a new token", err, enroll.ErrBanned)
			}
			if got := r.agent(back.ID); !got.Banned || got.Serial != "" {
				t.Errorf("the ban is gone: %v", got)
			}
			// Evicting lifts a ban, as in SPIRE; the old token is worth nothing then.
			r.evict(back.ID)
			_, err = r.Attest(t.Context(), try())
			wantErr(t, "evicted after a ban", err, m.evicted)
		})
	}
}

// joiner returns what makes attempts of one agent with one new token.
func joiner(r *rig, method string) func() enroll.Attempt {
	switch method {
	case "join_token":
		token, key := r.token(enroll.TokenRequest{Method: method}), newKey(r.t)
		return func() enroll.Attempt {
			return enroll.Attempt{Method: method, Payload: []byte(token.Token), CSR: newCSR(r.t, key)}
		}
	case "join_key":
		if r.only == nil {
			r.only = r.node()
		}
		token, n := r.token(enroll.TokenRequest{}), r.only
		return func() enroll.Attempt { return n.attempt(token.Token) }
	}
	return func() enroll.Attempt {
		return enroll.Attempt{Method: method, Payload: []byte("good"), CSR: newCSR(r.t, newKey(r.t))}
	}
}

// retoken makes an attempt of the one node with another token.
func retoken(r *rig, req enroll.TokenRequest) enroll.Attempt {
	return r.only.attempt(r.token(req).Token)
}

// The record of an agent that attests again keeps its version, and loses its
// old serials and selectors.
func TestReattestationReplacesTheRecord(t *testing.T) {
	r := newRig(t, withMethod("m", evidence("/spire/agent/m/x", true)), func(cfg *enroll.Config) { cfg.AgentIDAsSelector = true })
	try := joiner(r, "m")
	first, err := r.Attest(t.Context(), try())
	must(t, err)
	agent := r.agent(first.ID)
	if len(agent.Selectors) != 3 || agent.Selectors[2].Type != "spiffe_id" || agent.Selectors[2].Value != first.ID.String() {
		t.Errorf("selectors: %v", agent.Selectors)
	}
	r.setVersion(first.ID, "1.2.3")
	second, err := r.Attest(t.Context(), try())
	must(t, err)
	agent = r.agent(first.ID)
	if agent.Serial != second.SVID[0].SerialNumber.String() || agent.NewSerial != "" || agent.AgentVersion != "1.2.3" || !agent.CanReattest {
		t.Errorf("agent: %v", agent)
	}
}

func TestIDsThatAMethodMayNotMake(t *testing.T) {
	m := &fixed{Reattestable: true}
	r := newRig(t, withMethod("m", m))
	for id, ok := range map[string]bool{
		"spiffe://lanyard.test/spire/server": false, "spiffe://lanyard.test/spire/agent/join_key/x": false, "spiffe://lanyard.test": false,
		"spiffe://lanyard.test/spire/agent/join_token/x": false, "spiffe://other.test/spire/agent/m/x": false,
		"spiffe://lanyard.test/spire/agent/m/x": true, "spiffe://lanyard.test/spire/agent/other/x": true, "spiffe://lanyard.test/legacy": true,
	} {
		m.ID = spiffeid.RequireFromString(id)
		_, err := r.Attest(t.Context(), joiner(r, "m")())
		if (err == nil) != ok {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestRefusalsKeepTheMethodsText(t *testing.T) {
	r := newRig(t, withMethod("m", evidence("/spire/agent/m/x", true)))
	a := joiner(r, "m")()
	a.Payload = []byte("bad")
	_, err := r.Attest(t.Context(), a)
	wantErr(t, "a bad payload", err, enroll.ErrRefused)
	if err.Error() != "nodeattestor(m): payload is not good" {
		t.Error(err)
	}
	a.Method = "sshpop"
	_, err = r.Attest(t.Context(), a)
	wantErr(t, "a method that is not there", err, enroll.ErrUnknownMethod)
	if err.Error() != `error getting node attestor: could not find node attestor type "sshpop"` {
		t.Error(err)
	}
}

// A token ends; what it has bound does not.
func TestTimePasses(t *testing.T) {
	now := time.Now()
	r := newRig(t, func(cfg *enroll.Config) { cfg.Now = func() time.Time { return now } })
	unused, ofKey, ofToken := r.token(enroll.TokenRequest{}), r.token(enroll.TokenRequest{}), joiner(r, "join_token")
	n := r.node()
	first, err := n.join(ofKey.Token)
	must(t, err)
	_, err = r.Attest(t.Context(), ofToken())
	must(t, err)

	now = now.Add(hour)
	_, err = r.node().join(unused.Token)
	wantErr(t, "a token at its end", err, enroll.ErrTokenExpired)
	_, err = r.node().join(unused.Token)
	wantErr(t, "and after", err, enroll.ErrTokenSpent)
	_, err = r.Attest(t.Context(), ofToken())
	wantErr(t, "the same key with a token of join_token at its end", err, enroll.ErrTokenExpired)

	now = now.Add(365 * 24 * hour)
	again, err := n.join("")
	must(t, err)
	if again.ID != first.ID {
		t.Errorf("came back after a year as %s", again.ID)
	}
}
