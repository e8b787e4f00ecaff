package agentcmd_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/cmd/internal/agentcmd"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// validate runs the verb, as spire-agent would be run.
func validate(t *testing.T, dialect cli.Dialect, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errOut bytes.Buffer
	env := &cli.Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Exit: func(int) { t.Error("exit") }, Root: true,
		Getenv: func(string) string { return "" }, Dialect: dialect,
	}
	code = cli.Execute(t.Context(), env, agentcmd.Fill(env, cli.Root(env, "spire-agent", agentcmd.Long)), append([]string{"validate"}, args...))
	return out.String(), errOut.String(), code
}

// refused are the agent's files of SPIRE's repository that are refused, each with the faults to be named, one a line, in the
// order of their lines; "…" is anything. All others are taken.
var refused = map[string][]string{
	// Shows all there is, and so two and more of what there can be one of.
	"conf/agent/agent_full.conf": {`plugins.KeyManager "memory": there is "disk" already, …`,
		`plugins.NodeAttestor "aws_iid": known to SPIRE, …`, `…"azure_msi": known to SPIRE, …`, `…"gcp_iit": known to SPIRE, …`, `…"k8s_psat": there is "join_token" already, …`,
		`…"sshpop": known to SPIRE, …`, `…"x509pop": there is "join_token" already, …`, `…"tpm_devid": known to SPIRE, …`,
		`plugins.SVIDStore "gcp_secretmanager": known to SPIRE, …`, `plugins.SVIDStore "aws_secretsmanager": known to SPIRE, …`,
		`plugins.WorkloadAttestor "slurm": known to SPIRE, not supported yet; supported: docker, k8s, systemd, unix; remove it`},

	// What the agent has not.
	"test/integration/suites/slurm-x509/conf/agent/agent.conf":       {`plugins.WorkloadAttestor "slurm": known to SPIRE, …`},
	"test/integration/suites/svidstore/conf/agent/agent.conf":        {`plugins.SVIDStore "disk": plugin_cmd: programs of others can't be plugged in, …`},
	"test/integration/suites/workloadattestor/conf/agent/agent.conf": {`plugins.WorkloadAttestor "test-wa": plugin_cmd: programs of others can't be plugged in, …`},

	// Windows.
	"conf/agent/agent_windows.conf":                                                   {`…named_pipe_name: known to SPIRE, not supported yet; it is for Windows: …`, `plugins.WorkloadAttestor "windows": known to SPIRE, …`},
	"release/windows/spire/conf/agent/agent.conf":                                     {`plugins.WorkloadAttestor "windows": …`},
	"test/integration/suites-windows/windows-service/conf/agent/agent.conf":           {`plugins.WorkloadAttestor "windows": …`},
	"test/integration/suites-windows/windows-workload-attestor/conf/agent/agent.conf": {`plugins.WorkloadAttestor "windows": …`},

	// Broken on purpose, or templates of SPIRE's own tests.
	"test/fixture/config/agent_bad_agent_block.conf":            {`unknown key "unknown_option1" in agent; …`, `unknown key "unknown_option2" …`},
	"test/fixture/config/agent_bad_nested_ratelimit_block.conf": {`unknown key "unknown_option1" in agent.experimental.ratelimit; …`, `unknown key "unknown_option2" …`},
	"test/fixture/config/agent_good_templated.conf":             {`agent.trust_domain: "$TEST_DATA_TRUST_DOMAIN": environment variables are filled in with -expandEnv only`},
	"test/fixture/config/agent_good_posix.conf":                 {`unknown key "bind_address" in agent; …`, `unknown key "bind_port" in agent; …`, `unknown block "plugin_type_agent" in plugins; …`, `…`, `…`},
	"test/fixture/config/agent_good_windows.conf":               {`unknown key "bind_address" in agent; …`, `unknown key "bind_port" in agent; …`, `…`, `unknown block "plugin_type_agent" in plugins; …`, `…`, `…`},
}

// Each file for an agent in SPIRE's repository is taken, or refused with all that is wrong with it, by name.
func TestFilesOfSPIREsRepository(t *testing.T) {
	root := os.Getenv("LANYARD_PEERS_SRC")
	if root == "" {
		t.Skip("LANYARD_PEERS_SRC names no folder with SPIRE's source")
	}
	root = filepath.Join(root, "spire")
	found, taken := 0, 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".conf") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !regexp.MustCompile(`(?m)^\s*agent\s*(=\s*)?\{`).Match(text) {
			return err
		}
		rel, err := filepath.Rel(root, path)
		found++
		if len(refused[rel]) == 0 {
			taken++
		}
		t.Run(rel, func(t *testing.T) { checkSPIREFile(t, rel, text) })
		return err
	})
	if err != nil || found < 50 {
		t.Fatalf("%d files, %v", found, err)
	}
	t.Logf("%d of %d files are taken", taken, found)
}

var trustDomain = regexp.MustCompile(`(?m)^\s*trust_domain\s*=\s*"([^"$]+)"`)

// named are files that are made where the agent is installed.
var named = regexp.MustCompile(`"[^"]*/(bootstrap|dummy_root_ca|server-bundle|[a-z-]*bundle)\.(crt|pem)"`)

func checkSPIREFile(t *testing.T, rel string, text []byte) {
	t.Chdir(t.TempDir())
	td := "example.org"
	if found := trustDomain.FindSubmatch(text); found != nil {
		td = string(found[1])
	}
	bundle, err := testca.New(t, td).Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("bundle.pem", bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("c.conf", named.ReplaceAll(text, []byte(`"bundle.pem"`)), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := validate(t, cli.SPIREAgent, "-config", "c.conf")
	var got []string
	for line := range strings.Lines(stderr) {
		if fault, ok := strings.CutPrefix(line, "Error: "); ok {
			_, fault, _ = strings.Cut(strings.TrimSpace(fault), ": ")
			got = append(got, fault)
		}
	}
	want := refused[rel]
	if len(want) == 0 {
		if code != 0 || stdout != "SPIRE agent configuration file is valid.\n" {
			t.Errorf("exit code %d, %s%s", code, stdout, stderr)
		}
		return
	}
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(like)); diff != "" {
		t.Errorf("(-want +got) %s", diff)
	}
}

// like compares texts; "…" in one of them is anything.
func like(a, b string) bool {
	if strings.Contains(b, "…") {
		a, b = b, a
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(a), "…", ".*")
	return a == b || regexp.MustCompile("^"+pattern+"$").MatchString(b)
}
