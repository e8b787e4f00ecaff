package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// mistake is a command that must fail, and what its error must hold.
type mistake struct {
	name string
	args []string
	exit int
	want []string // in the error or its hint
}

// limit is how long a command that must fail may take to.
const limit = 20 * time.Second

// check runs the command: one line of error, perhaps a hint, the exit code, and nothing on standard output but logs.
func (m mistake) check(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "lanyard"), m.args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LANYARD_STATE_DIR="+filepath.Join(dir, "state"), "LANYARD_RUN_DIR="+filepath.Join(dir, "run"),
		"SPIFFE_ENDPOINT_SOCKET=")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		t.Fatalf("lanyard %s: did not end within %v", strings.Join(m.args, " "), limit)
	}
	if got := harness.ExitCode(err); got != m.exit {
		t.Errorf("exit code %d, want %d", got, m.exit)
	}
	text := stderr.String()
	t.Logf("lanyard %s\n%s", strings.Join(m.args, " "), text)
	var errors []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "hint: ") {
			errors = append(errors, line)
		}
	}
	if len(errors) != 1 {
		t.Errorf("%d lines of error, want one:\n%s", len(errors), text)
	}
	for _, want := range m.want {
		if !strings.Contains(text, want) {
			t.Errorf("no word of %q in:\n%s", want, text)
		}
	}
}

// empty fails the test if a failed command left something in a directory it did not find there.
func empty(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err == nil {
		for _, entry := range entries {
			t.Errorf("a failed command left %s", filepath.Join(dir, entry.Name()))
		}
	}
}

func TestBadInputOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for _, m := range []mistake{
		{"wrong flag of a SPIRE verb", []string{"issuer", "entry", "create", "-spifeID", "spiffe://lanyard.test/x"}, 1, []string{"-spifeID", "-spiffeID"}},
		{"wrong flag of our own verb", []string{"up", "-trustDomian", "x"}, 2, []string{"-trustDomian", "-trustDomain"}},
		{"wrong verb", []string{"issuer", "entri", "show"}, 1, []string{"entri", "entry"}},
		{"wrong role", []string{"isuer"}, 2, []string{"isuer", "issuer"}},
		{"bad SPIFFE ID", []string{"issuer", "entry", "create", "-spiffeID", "lanyard.test/x", "-parentID", "spiffe://lanyard.test/node", "-selector", "unix:uid:1"}, 1, []string{"lanyard.test/x"}},
		{"selector without a type", []string{"issuer", "entry", "create", "-spiffeID", "spiffe://lanyard.test/x", "-parentID", "spiffe://lanyard.test/node", "-selector", "uid"}, 1, []string{`"uid"`, "type"}},
		{"sidecar without rules", []string{"sidecar", "server", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1", "--use-workload-api"}, 1, []string{"--allow-uri", "--allow-all"}},
		{"sidecar without identity", []string{"sidecar", "client", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1"}, 1, []string{"--use-workload-api"}},
		{"sidecar to another machine", []string{"sidecar", "server", "--listen", "127.0.0.1:0", "--target", "192.0.2.1:80", "--use-workload-api", "--allow-all"}, 1, []string{"192.0.2.1:80", "--unsafe-target"}},
		{"bad pattern", []string{"sidecar", "server", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1", "--use-workload-api", "--allow-uri", "spiffe://td/a*"}, 1, []string{"spiffe://td/a*"}},
		{"no issuer there", []string{"issuer", "entry", "show"}, 1, []string{"api.sock"}},
		{"no agent there", []string{"agent", "healthcheck"}, 1, []string{"api.sock"}},
	} {
		t.Run(m.name, func(t *testing.T) {
			dir := harness.NewStage(t, bin).Dir
			m.check(t, dir)
			empty(t, dir)
		})
	}
}

func TestBadInputInAConfiguration(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, role, text, want string }{
		{"unknown key of the issuer", "issuer", "server {\n  trust_domian = \"lanyard.test\"\n}\n", `bad.conf:2: trust_domian, did you mean trust_domain`},
		{"unknown key of the agent", "agent", "agent {\n  trust_domain = \"lanyard.test\"\n  server_adress = \"x\"\n}\n", `bad.conf:3: server_adress, did you mean server_address`},
		{"bad SPIFFE ID", "issuer", "server {\n  trust_domain = \"lanyard.test\"\n  admin_ids = [\"lanyard.test/admin\"]\n}\n", `lanyard.test/admin`},
		{"bad trust domain", "issuer", "server {\n  trust_domain = \"Lanyard Test\"\n}\n", `Lanyard Test`},
		{"bad duration", "issuer", "server {\n  trust_domain = \"lanyard.test\"\n  ca_ttl = \"1 day\"\n}\n", `1 day`},
		{"not closed", "issuer", "server {\n  trust_domain = \"lanyard.test\"\n", `bad.conf:`},
	} {
		for _, verb := range []string{"validate", "run"} {
			t.Run(c.name+", "+verb, func(t *testing.T) {
				s := harness.NewStage(t, bin)
				file := s.WriteFile("conf/bad.conf", c.text)
				var want []string
				for part := range strings.SplitSeq(c.want, ", did you mean ") {
					want = append(want, strings.Split(part, ": ")...)
				}
				mistake{args: []string{c.role, verb, "-config", file}, exit: 1, want: want}.check(t, s.Dir)
				empty(t, s.Path("state"))
				empty(t, s.Path("run"))
			})
		}
	}
}

// join tells an agent with a state of its own to join d.
func join(t *testing.T, d *harness.Domain, name, bundle, token string) mistake {
	t.Helper()
	host, port, _ := strings.Cut(d.IssuerAddr, ":")
	file := d.WriteFile(name+".conf", `agent {
  trust_domain = "`+d.Name+`"
  server_address = "`+host+`"
  server_port = `+port+`
  data_dir = "`+d.Path(name, "data")+`"
  socket_path = "`+d.Path(name, "api.sock")+`"
  trust_bundle_path = "`+bundle+`"
}
`)
	return mistake{args: []string{"agent", "run", "-config", file, "-joinToken", token}, exit: 1}
}

func TestBadInputToAJoiningAgent(t *testing.T) {
	t.Parallel()
	d := harness.NewDomain(t, bin, harness.Options{})
	d.StartIssuer()
	token := d.Token()
	d.StartAgent(token)
	bundle := filepath.Join(d.Dir, "bundle.pem")

	t.Run("used token", func(t *testing.T) {
		m := join(t, d, "used", bundle, token)
		m.want = []string{token[:4], "was used already", "token generate"}
		m.check(t, d.Dir)
	})
	t.Run("unknown token", func(t *testing.T) {
		m := join(t, d, "unknown", bundle, "no-such-token")
		m.want = []string{"is unknown", "token generate"}
		m.check(t, d.Dir)
	})
	t.Run("expired token", func(t *testing.T) {
		short := d.Token("-ttl", "1")
		<-time.After(2100 * time.Millisecond) // the token's life, in whole seconds
		m := join(t, d, "expired", bundle, short)
		m.want = []string{short[:4], "has expired", "token generate"}
		m.check(t, d.Dir)
	})
	t.Run("bundle of another trust domain", func(t *testing.T) {
		other := harness.NewDomain(t, bin, harness.Options{TrustDomain: "other.test"})
		other.StartIssuer()
		m := join(t, d, "foreign", d.WriteFile("foreign.pem", other.Admin("bundle", "show")), d.Token())
		m.want = []string{"foreign.pem", "other.test", "lanyard.test"}
		m.check(t, d.Dir)
	})
	t.Run("bundle of another issuer", func(t *testing.T) {
		other := harness.NewDomain(t, bin, harness.Options{})
		other.StartIssuer()
		m := join(t, d, "stranger", d.WriteFile("stranger.pem", other.Admin("bundle", "show")), d.Token())
		m.want = []string{d.IssuerAddr, "bundle"}
		m.check(t, d.Dir)
	})
	t.Run("empty bundle", func(t *testing.T) {
		m := join(t, d, "nobundle", d.WriteFile("empty.pem", ""), d.Token())
		m.want = []string{"empty.pem"}
		m.check(t, d.Dir)
	})
}

func TestBadInputWhereToListen(t *testing.T) {
	t.Parallel()
	d := harness.NewDomain(t, bin, harness.Options{})
	d.Start()
	conf := func(name, port, socket string) []string {
		host, free, _ := strings.Cut(d.Addr(), ":")
		if port == "" {
			port = free
		}
		file := d.WriteFile(name+".conf", `server {
  trust_domain = "lanyard.test"
  bind_address = "`+host+`"
  bind_port = `+port+`
  data_dir = "`+d.Path(name, "data")+`"
  socket_path = "`+socket+`"
}
`)
		return []string{"issuer", "run", "-config", file}
	}
	_, port, _ := strings.Cut(d.IssuerAddr, ":")
	stale := d.WriteFile("stale/api.sock", "this is a file, not a socket")
	side := []string{"sidecar", "client", "--target", "127.0.0.1:1", "--use-workload-api-addr", d.WorkloadAPI(), "--listen"}
	for _, m := range []mistake{
		{"port in use", conf("port", port, d.Path("port", "api.sock")), 1, []string{d.IssuerAddr, "in use"}},
		{"socket in use", conf("live", "", d.IssuerSocket), 1, []string{d.IssuerSocket, "in use"}},
		{"no socket but a file", conf("file", "", stale), 1, []string{stale, "socket"}},
		{"sidecar's port in use", append(side, d.IssuerAddr), 1, []string{d.IssuerAddr, "in use"}},
	} {
		t.Run(m.name, func(t *testing.T) { m.check(t, d.Dir) })
	}
	if text, err := os.ReadFile(stale); err != nil || !strings.HasPrefix(string(text), "this is") {
		t.Errorf("the file in the way is gone: %q, %v", text, err)
	}
	t.Run("again, once the port is free", func(t *testing.T) { // what the failed start wrote is whole
		args := conf("port", "", d.Path("port", "api.sock"))
		p := d.Stage.Start("second issuer", filepath.Join(bin, "lanyard"), args...)
		if _, err := p.WaitFor(t.Context(), "issuer is ready"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a socket nobody serves", func(t *testing.T) {
		d.Issuer.Kill() // leaves its socket behind
		if _, err := os.Stat(d.IssuerSocket); err != nil {
			t.Fatal(err)
		}
		d.StartIssuer()
	})
}
