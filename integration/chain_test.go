package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

const greeting = "hello from a program that knows nothing of this\n"

// chain is a web server behind a sidecar, and what a client of it needs.
type chain struct {
	*harness.Domain
	server           *harness.Sidecar
	serverID, userID string
}

// newChain starts all but a client. The server lets only userID in.
func newChain(t *testing.T, options harness.Options) *chain {
	t.Helper()
	d := harness.NewDomain(t, bin, options)
	c := &chain{Domain: d, serverID: d.ID("/web"), userID: d.ID("/user")}
	d.Start()
	binary := d.Copy(d.SidecarBinary(), "web")
	d.Entry(c.serverID, binary, 0)
	c.server = d.Sidecar(harness.SidecarSpec{
		Name: "server sidecar", Binary: binary, Mode: "server", Target: d.WebServer(greeting),
		WorkloadAPI: d.WorkloadAPI(), Args: []string{"--allow-uri", c.userID},
	})
	return c
}

// client starts a client sidecar with an identity of its own.
func (c *chain) client(spiffeID string, args ...string) *harness.Sidecar {
	c.Helper()
	return c.Sidecar(c.clientSpec(spiffeID, args...))
}

// unready is client for one whose health is bad: its target is not whom it wants, or won't have it.
func (c *chain) unready(spiffeID string, args ...string) *harness.Sidecar {
	c.Helper()
	spec := c.clientSpec(spiffeID, args...)
	spec.NotReadyIsFine = true
	return c.Sidecar(spec)
}

func (c *chain) clientSpec(spiffeID string, args ...string) harness.SidecarSpec {
	c.Helper()
	name := spiffeID[strings.LastIndexByte(spiffeID, '/')+1:]
	binary := c.Copy(c.SidecarBinary(), name)
	c.Entry(spiffeID, binary, 0)
	return harness.SidecarSpec{
		Name: name + " sidecar", Binary: binary, Mode: "client", Target: c.server.Listen, WorkloadAPI: c.WorkloadAPI(), Args: args,
	}
}

func TestChainServesAnUnmodifiedProgram(t *testing.T) {
	t.Parallel()
	c := newChain(t, harness.Options{})
	client := c.client(c.userID, "--verify-uri", c.serverID)
	got, err := curl(t.Context(), client.Listen)
	if err != nil || got != greeting {
		t.Fatalf("got %q, %v, want %q", got, err, greeting)
	}
	for _, side := range []*harness.Sidecar{client, c.server} {
		line, err := side.WaitFor(t.Context(), map[bool]string{true: c.userID, false: c.serverID}[side == c.server])
		if err != nil {
			t.Error(err)
		}
		if !strings.Contains(line, c.userID) || !strings.Contains(line, c.serverID) {
			t.Errorf("%s: a record names both SPIFFE IDs, this one does not: %s", side.Name, line)
		}
	}
}

func TestChainRefusesAnotherIdentity(t *testing.T) {
	t.Parallel()
	c := newChain(t, harness.Options{})
	intruderID := c.ID("/intruder")
	intruder := c.unready(intruderID)
	if got, err := curl(t.Context(), intruder.Listen); err == nil {
		t.Fatalf("the intruder was served: %q", got)
	}
	if _, err := c.server.WaitFor(t.Context(), intruderID); err != nil {
		t.Error(err)
	}
	// The refusal harmed nobody else.
	if got, err := curl(t.Context(), c.client(c.userID).Listen); err != nil || got != greeting {
		t.Errorf("got %q, %v, want %q", got, err, greeting)
	}
}

func TestChainRefusesAnotherServer(t *testing.T) {
	t.Parallel()
	c := newChain(t, harness.Options{})
	client := c.unready(c.userID, "--verify-uri", c.ID("/another"))
	if got, err := curl(t.Context(), client.Listen); err == nil {
		t.Fatalf("the wrong server was believed: %q", got)
	}
	if _, err := client.WaitFor(t.Context(), c.serverID); err != nil {
		t.Error(err)
	}
}

// TestChainRefusesAnUnregisteredProgram runs the very same binary from a path nobody registered.
func TestChainRefusesAnUnregisteredProgram(t *testing.T) {
	t.Parallel()
	c := newChain(t, harness.Options{})
	stranger := c.Sidecar(harness.SidecarSpec{
		Name: "stranger sidecar", Binary: c.Copy(c.SidecarBinary(), "stranger"), Mode: "client", Target: c.server.Listen,
		WorkloadAPI: c.WorkloadAPI(), Args: []string{"--connect-timeout", "1s"}, NotReadyIsFine: true,
	})
	if got, err := curl(t.Context(), stranger.Listen); err == nil {
		t.Fatalf("a program without an entry was served: %q", got)
	}
}

// TestChainStartsBeforeItsAgent starts the sidecars first, and the issuer and agent only then.
func TestChainStartsBeforeItsAgent(t *testing.T) {
	t.Parallel()
	d := harness.NewDomain(t, bin, harness.Options{})
	start := func(name, mode, target string, rule ...string) (string, *harness.Sidecar) {
		binary := d.Copy(d.SidecarBinary(), name)
		return binary, d.Sidecar(harness.SidecarSpec{
			Name: name, Binary: binary, Mode: mode, Target: target, WorkloadAPI: d.WorkloadAPI(), Args: rule, NotReadyIsFine: true,
		})
	}
	web, server := start("web", "server", d.WebServer(greeting), "--allow-uri", d.ID("/user"))
	user, client := start("user", "client", server.Listen, "--verify-uri", d.ID("/web"))
	d.Start()
	d.Entry(d.ID("/web"), web, 0)
	d.Entry(d.ID("/user"), user, 0)
	d.Until(fetchLimit, "an answer", func(ctx context.Context) error {
		got, err := curl(ctx, client.Listen)
		if err == nil && got != greeting {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
}

func TestChainServesGoClients(t *testing.T) {
	t.Parallel()
	d := harness.NewDomain(t, bin, harness.Options{})
	d.Start()
	id := d.ID("/gopher")
	d.Entry(id, selfPath(t), 0)
	fetchGo(t, d, id)
}
