package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// agentVerbs are two command lines of SPIRE's agent, the real one's and ours, and an agent of each, of one issuer.
type agentVerbs struct {
	*testing.T
	issuer      *harness.Issuer
	real, ours  string // command lines
	spire, mine *harness.Agent
	tried       map[string]bool // the verbs run so far
}

// TestInteropEveryVerbOfSPIREAgent runs each client command of the real spire-agent, and the same of ours, on a real
// spire-agent and on ours: what is printed, where, and the exit code are the same all four times.
func TestInteropEveryVerbOfSPIREAgent(t *testing.T) {
	t.Parallel()
	real, err := filepath.EvalSymlinks(peer(t, "spire-agent"))
	if err != nil {
		t.Fatal(err)
	}
	s := harness.NewStage(t, bin)
	v := &agentVerbs{T: t, issuer: harness.StartIssuer(s, harness.IssuerSpec{}), real: real, ours: s.Path("spire", "spire-agent"), tried: map[string]bool{}}
	lanyard := filepath.Join(bin, "lanyard")
	if err := os.Symlink(lanyard, v.ours); err != nil {
		t.Fatal(err)
	}
	node := v.issuer.ID("/node")
	for _, path := range []string{real, lanyard} {
		v.issuer.Entry(node, v.issuer.ID("/cli"), path, "-dns", "cli.test", "-x509SVIDTTL", "3600")
	}
	v.spire = harness.NewAgent(v.issuer, harness.AgentSpec{SPIREAgent: real})
	v.spire.Start(v.issuer.Token(node))
	v.mine = harness.NewAgent(v.issuer, harness.AgentSpec{})
	v.mine.Start(v.issuer.Token(node))
	for _, agent := range []*harness.Agent{v.spire, v.mine} {
		s.Until(fetchLimit, "the entries", func(ctx context.Context) error {
			for _, cli := range []string{v.real, v.ours} {
				if _, err := harness.Run(ctx, cli, "api", "fetch", "-silent", "-socketPath", agent.Socket); err != nil {
					return err
				}
			}
			return nil
		})
	}
	v.workload()
	v.admin()
	for _, verb := range everyAgentVerb(t, real) {
		if !v.tried[verb] {
			t.Errorf("spire-agent %s was not tried", verb)
		}
	}
}

// same runs a command all four times. What spire-agent prints at its own agent is what is expected.
func (v *agentVerbs) same(command string, want ...string) {
	v.Helper()
	v.compare(command, want, func(s said) said { return s })
}

// alike is same for where the words of an error are ours: those wanted are in all of them.
func (v *agentVerbs) alike(command string, want ...string) {
	v.Helper()
	v.compare(command, want, func(s said) said {
		if s.Code == 0 {
			v.Errorf("%s: no error", command)
		}
		s.Stderr = ""
		return s
	})
}

func (v *agentVerbs) compare(command string, want []string, part func(said) said) {
	v.Helper()
	var expected said
	for i, one := range []struct {
		name  string
		cli   string
		agent *harness.Agent
	}{
		{"spire-agent's command line at spire-agent", v.real, v.spire}, {"ours at spire-agent", v.ours, v.spire},
		{"spire-agent's at our agent", v.real, v.mine}, {"ours at our agent", v.ours, v.mine},
	} {
		got := v.run(one.cli, one.agent, command)
		for _, words := range want {
			if !strings.Contains(got.Stdout+got.Stderr, words) {
				v.Errorf("%s: %s says no %q: %+v", command, one.name, words, got)
			}
		}
		if got = part(got); i == 0 {
			expected = got
		} else if diff := cmp.Diff(expected, got); diff != "" {
			v.Errorf("%s: %s (+) differs from spire-agent's at its own:\n%s", command, one.name, diff)
		}
	}
}

func (v *agentVerbs) workload() {
	v.Helper()
	id := v.issuer.ID("/cli")
	v.same("api fetch -socketPath SOCKET", "Received 1 svid after", id, "SVID Valid Until", "CA #1 Valid Until")
	v.same("api fetch x509 -socketPath SOCKET -silent")
	v.same("api fetch x509 -socketPath SOCKET -output json", `"svids"`)
	v.same("api fetch jwt -socketPath SOCKET -audience shop -audience bank", "token("+id+")")
	v.same("api fetch jwt -socketPath SOCKET -audience shop -output json")
	v.same("api fetch jwt -socketPath SOCKET -audience shop -spiffeID " + id)
	v.same("api fetch jwt -socketPath SOCKET -audience shop -spiffeID spiffe://lanyard.test/other")
	v.same("api fetch jwt -socketPath SOCKET", "audience must be specified")
	v.alike("api fetch x509 -socketPath SOCKET.none -timeout 1s", "no such file or directory")
	v.alike("api fetch x509 -socketPath SOCKET -output yaml", `"yaml"`)
	token := strings.TrimSpace(strings.Split(v.token(), "\n")[1])
	v.same("api validate jwt -socketPath SOCKET -audience shop -svid "+token, "SVID is valid.")
	v.same("api validate jwt -socketPath SOCKET -audience shop -output json -svid " + token)
	v.same("api validate jwt -socketPath SOCKET -audience else -svid "+token, "SVID is not valid")
	v.alike("api validate jwt -socketPath SOCKET -audience shop -svid "+token+"x", "SVID is not valid")
	v.same("api validate jwt -socketPath SOCKET -svid "+token, "audience must be specified")
	v.same("api validate jwt -socketPath SOCKET -audience shop", "svid must be specified")
	v.writes()
	v.watches()
}

// token is one that both agents vouch for.
func (v *agentVerbs) token() string {
	v.Helper()
	out, err := harness.Run(v.Context(), v.real, "api", "fetch", "jwt", "-socketPath", v.spire.Socket, "-audience", "shop")
	if err != nil {
		v.Fatal(err)
	}
	return out
}

// writes compares the files that fetch writes.
func (v *agentVerbs) writes() {
	v.Helper()
	names := map[string]string{}
	for i, cli := range []string{v.real, v.ours} {
		for j, agent := range []*harness.Agent{v.spire, v.mine} {
			dir := v.issuer.Path("written", fmt.Sprintf("%d%d", i, j), "x")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				v.Fatal(err)
			}
			if got := v.run(cli, agent, "api fetch x509 -socketPath SOCKET -write "+dir); got.Code != 0 {
				v.Errorf("api fetch -write: %+v", got)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				v.Fatal(err)
			}
			var list []string
			for _, entry := range entries {
				info, err := entry.Info()
				if err != nil {
					v.Fatal(err)
				}
				list = append(list, fmt.Sprint(entry.Name(), " ", info.Mode()))
			}
			names[strings.Join(list, ", ")] += fmt.Sprintf("%d%d ", i, j)
		}
	}
	if len(names) != 1 || strings.Contains(fmt.Sprint(names), "map[:") {
		v.Errorf("api fetch -write: not the same files: %v", names)
	}
}

// watches compares what watch prints first.
func (v *agentVerbs) watches() {
	v.Helper()
	printed := map[string]bool{}
	for _, cli := range []string{v.real, v.ours} {
		for _, agent := range []*harness.Agent{v.spire, v.mine} {
			v.tried["api watch"] = true
			p := v.issuer.Stage.Start("watch", cli, "api", "watch", "-socketPath", agent.Socket)
			ctx, cancel := context.WithTimeout(v.Context(), fetchLimit)
			if _, err := p.WaitFor(ctx, "CA #1 Valid Until"); err != nil {
				v.Error(err)
			}
			cancel()
			printed[strings.TrimSpace(steady(p.Log.Tail(100)))] = true
			_ = p.Stop(time.Second)
		}
	}
	if len(printed) != 1 {
		v.Errorf("api watch: not the same each time: %v", printed)
	}
}

func (v *agentVerbs) admin() {
	v.Helper()
	v.same("healthcheck -socketPath SOCKET", "Agent is healthy.")
	v.same("healthcheck -socketPath SOCKET -verbose")
	v.same("healthcheck -socketPath SOCKET -shallow")
	v.same("healthcheck -socketPath SOCKET.none")
	v.same("logger get -socketPath ADMIN", "Logger Level : debug")
	v.same("logger set -socketPath ADMIN -level warn", "Logger Level : warning")
	v.same("logger get -socketPath ADMIN -output json")
	v.same("logger reset -socketPath ADMIN", "Launch Level : debug")
	v.alike("logger set -socketPath ADMIN")
	v.alike("logger set -socketPath ADMIN -level loud", "loud")
	v.alike("logger get -socketPath ADMIN.none", "no such file or directory")
	v.same("debug getinfo -socketPath ADMIN", "Uptime:", "Last Sync Success:", "Cached X.509 SVIDs:", "SVID Chain:")
	v.same("debug getinfo -socketPath ADMIN -output json", "svid_chain")
	v.same("validate -config CONF", "SPIRE agent configuration file is valid.")
	v.alike("validate -config CONF.none", "agent.conf.none")
}
