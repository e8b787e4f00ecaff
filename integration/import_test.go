package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// takeoverRig is a real spire-server with a real spire-agent, and our issuer of the same trust domain.
type takeoverRig struct {
	*testing.T
	old, ours *harness.Domain
}

func newTakeover(t *testing.T) *takeoverRig {
	server, agent := peer(t, "spire-server"), peer(t, "spire-agent")
	r := &takeoverRig{T: t}
	r.old = harness.NewDomain(t, bin, harness.Options{SPIREServer: server, SPIREAgent: agent})
	r.ours = harness.NewDomain(t, bin, harness.Options{})
	// So that agents renew their SVIDs while the test looks on.
	r.edit(r.old.Path("server.conf"), "server {", "server {\n  agent_ttl = \"40s\"")
	r.old.StartIssuer()
	r.ours.StartIssuer()
	return r
}

// edit replaces text in a file.
func (r *takeoverRig) edit(path, old, new string) {
	r.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		r.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		r.Fatalf("no %q in %s", old, path)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), old, new)), 0o600); err != nil {
		r.Fatal(err)
	}
}

// takeover is the report of lanyard issuer import.
type takeover struct {
	Parts []struct {
		Kind                    string
		Taken, Updated, Present int
		Skipped                 []struct{ Name, Reason string }
	}
}

func (r *takeoverRig) take(args ...string) map[string][3]int {
	r.Helper()
	out := r.ours.Admin(append([]string{"import", "-spire-socket", r.old.IssuerSocket, "-output", "json"}, args...)...)
	var report takeover
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		r.Fatalf("%v in %s", err, out)
	}
	counts := map[string][3]int{}
	for _, p := range report.Parts {
		if len(p.Skipped) > 0 {
			r.Errorf("skipped %s: %v", p.Kind, p.Skipped)
		}
		counts[p.Kind] = [3]int{p.Taken, p.Updated, p.Present}
	}
	return counts
}

// agents are those an issuer knows, by SPIFFE ID.
func (r *takeoverRig) agents(d *harness.Domain) map[string]takenAgent {
	r.Helper()
	var list struct{ Agents []takenAgent }
	if err := json.Unmarshal([]byte(d.Admin("agent", "list", "-output", "json")), &list); err != nil {
		r.Fatal(err)
	}
	byID := map[string]takenAgent{}
	for _, a := range list.Agents {
		byID[a.ID.Path] = a
	}
	return byID
}

type takenAgent struct {
	ID     struct{ Path string }
	Serial string `json:"x509svid_serial_number"`
	Type   string `json:"attestation_type"`
	Banned bool
}

// TestInteropImportMovesAgentsWithoutTokens takes over from a real spire-server. A real spire-agent that joined it with a join
// token is pointed at our issuer: it serves, syncs and renews its SVID there, and the old server is gone.
func TestInteropImportMovesAgentsWithoutTokens(t *testing.T) {
	t.Parallel()
	r := newTakeover(t)
	r.old.StartAgent(r.old.Token("-spiffeID", r.old.NodeID))
	r.old.Entry(r.old.ID("/gopher"), selfPath(t), 0)
	fetchGo(t, r.old, r.old.ID("/gopher"))
	r.old.Admin("bundle", "set", "-id", "other.test", "-path", r.foreignBundle())
	r.old.Admin("federation", "create", "-trustDomain", "third.test", "-bundleEndpointURL", "https://third.test/", "-bundleEndpointProfile", "https_web")
	r.banned()

	if got := r.take("-dry-run"); got["entries"][0] == 0 || got["agents"][0] != 2 {
		t.Errorf("dry run: %v", got)
	}
	if n := len(r.agents(r.ours)); n != 0 {
		t.Fatalf("a dry run took %d agents", n)
	}
	first := r.take()
	for kind, n := range map[string]int{"federated bundles": 1, "federation relationships": 1, "agents": 2, "authorities into this issuer": 2} {
		if first[kind][0] != n {
			t.Errorf("%s: took %d, want %d", kind, first[kind][0], n)
		}
	}
	if got, want := len(r.ours.EntryIDs()), len(r.old.EntryIDs()); got != want {
		t.Errorf("%d entries, want %d", got, want)
	}
	for kind, n := range r.take() {
		if n[0] != 0 {
			t.Errorf("%s: took %d the second time", kind, n[0])
		}
	}
	r.move()
	fetchGo(t, r.old, r.old.ID("/gopher"))
	r.renews()
	r.ours.CreateEntry(r.ours.ID("/later"), 0, "unix:path:"+selfPath(t))
	r.old.Until(fetchLimit, "an identity that only our issuer knows", func(ctx context.Context) error {
		got, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(r.old.WorkloadAPI()))
		if err != nil {
			return err
		}
		for _, svid := range got.SVIDs {
			if svid.ID.Path() == "/later" {
				return nil
			}
		}
		return fmt.Errorf("only %d others", len(got.SVIDs))
	})
}

// foreignBundle is a file with a certificate of another domain.
func (r *takeoverRig) foreignBundle() string {
	r.Helper()
	return r.old.WriteFile("other.pem", r.old.Admin("bundle", "show"))
}

// banned joins a second agent to the old server and bans it.
func (r *takeoverRig) banned() {
	r.Helper()
	d := harness.NewDomain(r.T, bin, harness.Options{SPIREAgent: peer(r.T, "spire-agent")})
	conf := d.Path("agent.conf")
	r.edit(conf, port(d), port(r.old))
	if err := os.WriteFile(d.Path("bundle.pem"), []byte(r.old.Admin("bundle", "show")), 0o600); err != nil {
		r.Fatal(err)
	}
	token := r.old.Token()
	d.Agent = d.Stage.Start("agent to ban", peer(r.T, "spire-agent"), "run", "-config", conf, "-joinToken", token)
	if err := d.AgentReady(); err != nil {
		r.Fatal(err)
	}
	r.old.Admin("agent", "ban", "-spiffeID", r.old.ID("/spire/agent/join_token/"+token))
}

func port(d *harness.Domain) string { return d.IssuerAddr[strings.LastIndex(d.IssuerAddr, ":")+1:] }

// move points the agent of the old server at our issuer, and ends the old server.
func (r *takeoverRig) move() {
	r.Helper()
	r.old.Until(20*time.Second, "the agent to have the authorities of both", func(ctx context.Context) error {
		got, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(r.old.WorkloadAPI()))
		if err != nil {
			return err
		}
		bundle, ok := got.Bundles.Get(spiffeid.RequireTrustDomainFromString(r.old.Name))
		if !ok || len(bundle.X509Authorities()) != 2 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if err := r.old.Agent.Stop(10 * time.Second); err != nil {
		r.Logf("the agent ended with: %v", err)
	}
	r.take() // what it renewed meanwhile
	if err := r.old.Issuer.Stop(10 * time.Second); err != nil {
		r.Logf("the old server ended with: %v", err)
	}
	r.edit(r.old.Path("agent.conf"), port(r.old), port(r.ours))
	r.old.StartAgent("")
}

// renews waits until the agent has an SVID of our issuer.
func (r *takeoverRig) renews() {
	r.Helper()
	before := r.agents(r.ours)
	r.old.Until(60*time.Second, "the agent to renew its SVID", func(context.Context) error {
		for path, a := range r.agents(r.ours) {
			if !a.Banned && a.Serial != before[path].Serial {
				return nil
			}
		}
		return fmt.Errorf("still the one it came with")
	})
	banned := 0
	for _, a := range r.agents(r.ours) {
		if a.Banned {
			banned++
		}
	}
	if banned != 1 {
		r.Errorf("%d banned agents, want 1", banned)
	}
}
