package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

const (
	// shortLife is an agent's in these tests: a real agent looks at its own SVID every 5 s, and renews it at half life.
	shortLife = 8 * time.Second
	// lifeLimit is how long an agent may take to notice what happened to it.
	lifeLimit = 12 * time.Second
)

// agentLife is an issuer with a real spire-agent.
type agentLife struct {
	*testing.T
	issuer *harness.Issuer
	agent  *harness.Agent
	node   string // the second ID of a token's agent
}

// TestInteropSPIREAgentLifeUnderOurIssuer takes real spire-agents through what happens to agents.
func TestInteropSPIREAgentLifeUnderOurIssuer(t *testing.T) {
	t.Parallel()
	agentLives(t, harness.IssuerSpec{})
}

// agentLives runs each life on an issuer of its own; they take seconds, and little of the machine.
func agentLives(t *testing.T, spec harness.IssuerSpec) {
	t.Helper()
	agent := peer(t, "spire-agent")
	for name, live := range map[string]func(agentLife){
		"join token renews": agentLife.renews, "join token banned": agentLife.banned, "join token evicted": agentLife.evicted,
		"join token expires": agentLife.expires,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newAgentLife(t, agent, spec, "")
			l.agent.Start(l.issuer.Token(l.node))
			live(l)
		})
	}
	for name, live := range map[string]func(agentLife){
		"x509pop attests again": agentLife.renews, "x509pop banned": agentLife.bannedForGood, "x509pop evicted": agentLife.comesBack,
		"x509pop expires": agentLife.expiresAndComesBack,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newAgentLife(t, agent, spec, "x509pop")
			l.agent.Start("")
			live(l)
		})
	}
}

func newAgentLife(t *testing.T, agent string, spec harness.IssuerSpec, attestor string) agentLife {
	t.Helper()
	s := harness.NewStage(t, bin)
	spec.Server += "\nagent_ttl = \"" + shortLife.String() + "\""
	agentSpec := harness.AgentSpec{SPIREAgent: agent}
	if attestor == "x509pop" {
		factory := harness.NewAuthority(t, s.Dir, "factory.test")
		spec.Plugins, agentSpec.Attestor = harness.X509POP(factory, "machine")
	}
	issuer := harness.StartIssuer(s, spec)
	return agentLife{T: t, issuer: issuer, agent: harness.NewAgent(issuer, agentSpec), node: issuer.ID("/node")}
}

// id is the only agent's.
func (l agentLife) id() string {
	l.Helper()
	ids := l.issuer.AgentIDs()
	if len(ids) != 1 {
		l.Fatalf("agents: %v, want one", ids)
	}
	return ids[0]
}

// serial is that of the agent's SVID.
func (l agentLife) serial() string {
	l.Helper()
	serial, err := l.issuer.Serial(l.Context(), l.id())
	if err != nil {
		l.Fatal(err)
	}
	return serial
}

// changed waits until the agent has another SVID than that of the serial number.
func (l agentLife) changed(serial string) {
	l.Helper()
	id := l.id()
	l.agent.Until(lifeLimit, "another SVID of the agent", func(ctx context.Context) error {
		now, err := l.issuer.Serial(ctx, id)
		if err == nil && now == serial {
			err = fmt.Errorf("still %s", serial)
		}
		return err
	})
}

// serves registers this test below the parent, and waits until the agent gives it its SVID.
func (l agentLife) serves(parent, path string) {
	l.Helper()
	id := l.issuer.ID(path)
	l.issuer.Entry(parent, id, selfPath(l.T))
	fetchSVID(l.T, l.agent, id)
}

// fetchSVID gets the SVID of an ID for this process, with the bundle that verifies it.
func fetchSVID(t *testing.T, agent *harness.Agent, id string) *x509svid.SVID {
	t.Helper()
	var found *x509svid.SVID
	agent.Until(fetchLimit, "an SVID of "+id, func(ctx context.Context) error {
		got, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(agent.WorkloadAPI()))
		if err != nil {
			return err
		}
		want := spiffeid.RequireFromString(id)
		bundle, ok := got.Bundles.Get(want.TrustDomain())
		if !ok {
			return errors.New("no bundle of " + want.TrustDomain().Name())
		}
		for _, svid := range got.SVIDs {
			if svid.ID == want {
				found = svid
				_, _, err := x509svid.Verify(svid.Certificates, bundle)
				return err
			}
		}
		return fmt.Errorf("%d others", len(got.SVIDs))
	})
	return found
}

// renews wants the agent to have a new SVID before the old one ends, and to go on with it.
func (l agentLife) renews() {
	before := l.serial()
	l.changed(before)
	l.serves(l.id(), "/after-renewal")
	if !l.agent.Process.Running() {
		l.Error("the agent ended")
	}
}

// banned wants the agent to end.
func (l agentLife) banned() {
	l.issuer.Admin("agent", "ban", "-spiffeID", l.id())
	l.agent.Ended(lifeLimit)
	if l.agent.Process.Wait() == nil {
		l.Error("a banned agent ended with exit code 0")
	}
}

// bannedForGood wants an agent that can attest again to be refused when it does.
func (l agentLife) bannedForGood() {
	l.banned()
	l.agent.Launch("")
	l.agent.Ended(lifeLimit)
}

// evicted wants a token's agent to end, and to come back with a new token only.
func (l agentLife) evicted() {
	id := l.id()
	l.issuer.Admin("agent", "evict", "-spiffeID", id)
	l.agent.Ended(lifeLimit)
	l.agent.Start(l.issuer.Token(l.node))
	if again := l.id(); again == id {
		l.Errorf("another token, and the same agent: %s", id)
	}
	l.serves(l.node, "/after-eviction")
}

// comesBack wants an agent that can attest again to do so by itself.
func (l agentLife) comesBack() {
	id, before := l.id(), l.serial()
	l.issuer.Admin("agent", "evict", "-spiffeID", id)
	l.agent.Until(lifeLimit, "the agent again", func(ctx context.Context) error {
		_, err := l.issuer.Serial(ctx, id)
		return err
	})
	if l.serial() == before {
		l.Error("it came back with the evicted SVID")
	}
	l.serves(id, "/after-eviction")
}

// pause stops the agent until its SVID has ended.
func (l agentLife) pause() {
	l.Helper()
	if err := l.agent.Process.Stop(5 * time.Second); l.agent.Process.Stuck() {
		l.Fatal(err)
	}
	ended := time.NewTimer(shortLife + time.Second)
	defer ended.Stop()
	select {
	case <-ended.C:
	case <-l.Context().Done():
	}
}

// expires wants a token's agent that was away for too long to need a new token.
func (l agentLife) expires() {
	id := l.id()
	l.pause()
	l.agent.Start(l.issuer.Token(l.node))
	if ids := l.issuer.AgentIDs(); len(ids) != 2 {
		l.Errorf("agents: %v, want %s and another", ids, id)
	}
	l.serves(l.node, "/after-pause")
}

// expiresAndComesBack wants an agent that can attest again to do so after any pause.
func (l agentLife) expiresAndComesBack() {
	id := l.id()
	l.pause()
	l.agent.Start("")
	if again := l.id(); again != id {
		l.Errorf("it was %s, and is %s", id, again)
	}
	l.serves(id, "/after-pause")
}
