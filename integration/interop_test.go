package integration

import (
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

func TestInteropSPIREAgentJoinsOurIssuer(t *testing.T) {
	t.Parallel()
	agent, python := peer(t, "spire-agent"), pythonBinary(t)
	d := harness.NewDomain(t, bin, harness.Options{SPIREAgent: agent})
	d.Start()
	serveClients(t, d, python)
}

func TestInteropOurAgentJoinsSPIREServer(t *testing.T) {
	t.Parallel()
	server, python := peer(t, "spire-server"), pythonBinary(t)
	d := harness.NewDomain(t, bin, harness.Options{SPIREServer: server})
	d.Start()
	serveClients(t, d, python)
}

// serveClients registers this test and Python, and lets each fetch its SVID with the client of its language.
func serveClients(t *testing.T, d *harness.Domain, python string) {
	t.Helper()
	d.Entry(d.ID("/gopher"), selfPath(t), 0)
	d.Entry(d.ID("/snake"), pythonPath(t, python), 0)
	fetchGo(t, d, d.ID("/gopher"))
	fetchPython(t, d, python, d.ID("/snake"))
}

func TestInteropSPIRECommandLineOnOurIssuer(t *testing.T) {
	t.Parallel()
	server := peer(t, "spire-server")
	d := harness.NewDomain(t, bin, harness.Options{})
	d.StartIssuer()
	spire := func(args ...string) string {
		return d.Run(server, append(args, "-socketPath", d.IssuerSocket)...)
	}
	created := spire("entry", "create", "-parentID", d.NodeID, "-spiffeID", d.ID("/web"), "-selector", "unix:uid:4711",
		"-selector", "unix:path:/usr/bin/web", "-x509SVIDTTL", "60", "-dns", "web.example")
	for _, listed := range []string{spire("entry", "show"), d.Admin("entry", "show")} {
		for line := range strings.Lines(created) {
			if !strings.Contains(listed, strings.TrimSpace(line)) {
				t.Errorf("created %q, not listed in:\n%s", line, listed)
			}
		}
	}
	if _, err := harness.Run(t.Context(), server, "entry", "create", "-parentID", d.NodeID, "-spiffeID", d.ID("/web"),
		"-selector", "unix:uid:4711", "-selector", "unix:path:/usr/bin/web", "-socketPath", d.IssuerSocket); err == nil ||
		!strings.Contains(err.Error(), "AlreadyExists") {
		t.Errorf("a similar entry was created again: %v", err)
	}
	if got := spire("healthcheck"); !strings.Contains(got, "healthy") {
		t.Errorf("healthcheck: %q", got)
	}
	spire("token", "generate", "-spiffeID", d.NodeID)
	if got, want := spire("bundle", "show"), d.Admin("bundle", "show"); got != want {
		t.Errorf("bundle show: got %q, our own command says %q", got, want)
	}
	ids := d.EntryIDs()
	for _, id := range ids {
		if strings.Contains(created, id) {
			spire("entry", "delete", "-entryID", id)
		}
	}
	if got := d.EntryIDs(); slices.ContainsFunc(got, func(id string) bool { return strings.Contains(created, id) }) {
		t.Errorf("entry delete left %v", got)
	}
}

func TestInteropSidecarsOverSPIREAgent(t *testing.T) {
	t.Parallel()
	c := newChain(t, harness.Options{SPIREAgent: peer(t, "spire-agent")})
	client := c.client(c.userID, "--verify-uri", c.serverID)
	if got, err := curl(t.Context(), client.Listen); err != nil || got != greeting {
		t.Fatalf("got %q, %v, want %q", got, err, greeting)
	}
}

func TestInteropEnvoyOverLanyardSDSOverSPIREAgent(t *testing.T) {
	t.Parallel()
	envoyBinary(t)
	d := harness.NewDomain(t, bin, harness.Options{SPIREAgent: peer(t, "spire-agent")})
	d.Start()
	newEnvoyPair(t, d, harness.EnvoySpec{Printed: true}, bridge(d, d.WorkloadAPI())).check(t, d)
}

// TestInteropSidecarsUnderSPIREAlone runs our sidecars under SPIRE alone.
func TestInteropSidecarsUnderSPIREAlone(t *testing.T) {
	t.Parallel()
	c := newChain(t, harness.Options{SPIREAgent: peer(t, "spire-agent"), SPIREServer: peer(t, "spire-server")})
	if got, err := curl(t.Context(), c.client(c.userID, "--verify-uri", c.serverID).Listen); err != nil || got != greeting {
		t.Fatalf("got %q, %v, want %q", got, err, greeting)
	}
}

func TestInteropGhostunnelBothWays(t *testing.T) {
	t.Parallel()
	ghostunnel := peer(t, "ghostunnel")
	c := newChain(t, harness.Options{})
	t.Run("ghostunnel calls our sidecar", func(t *testing.T) {
		binary := c.Copy(ghostunnel, "ghost-user")
		c.Entry(c.userID, binary, 0)
		client := c.tunnel("ghostunnel client", binary, "client", c.server.Listen, "--verify-uri", c.serverID)
		if got, err := curl(t.Context(), client.Listen); err != nil || got != greeting {
			t.Fatalf("got %q, %v, want %q", got, err, greeting)
		}
	})
	t.Run("our sidecar calls ghostunnel", func(t *testing.T) {
		binary := c.Copy(ghostunnel, "ghost-web")
		id := c.ID("/ghost-web")
		c.Entry(id, binary, 0)
		// Its backend is our server sidecar's: the same web server.
		server := c.tunnel("ghostunnel server", binary, "server", c.WebServer(greeting), "--allow-uri", c.userID)
		own := c.Copy(c.SidecarBinary(), "user")
		c.Entry(c.userID, own, 0)
		client := c.Sidecar(harness.SidecarSpec{
			Name: "user sidecar", Binary: own, Mode: "client", Target: server.Listen, WorkloadAPI: c.WorkloadAPI(),
			Args: []string{"--verify-uri", id},
		})
		if got, err := curl(t.Context(), client.Listen); err != nil || got != greeting {
			t.Fatalf("got %q, %v, want %q", got, err, greeting)
		}
	})
}

// tunnel starts a ghostunnel: our sidecar takes the same flags. Its status fails until the other side is there, so
// only its listener is waited for.
func (c *chain) tunnel(name, binary, mode, target string, args ...string) *harness.Sidecar {
	c.Helper()
	return c.Sidecar(harness.SidecarSpec{
		Name: name, Binary: binary, Mode: mode, Target: target, WorkloadAPI: c.WorkloadAPI(),
		Args: append([]string{"--disable-landlock"}, args...),
	})
}
