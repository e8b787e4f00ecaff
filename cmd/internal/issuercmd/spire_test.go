package issuercmd_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/cmd/internal/issuercmd"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// validate runs the verb on a file, as spire-server would be run.
func validate(t *testing.T, dialect cli.Dialect, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errOut bytes.Buffer
	env := &cli.Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Exit: func(int) { t.Error("exit") }, Root: true,
		Getenv: func(string) string { return "" }, Dialect: dialect,
	}
	code = cli.Execute(t.Context(), env, issuercmd.Fill(env, cli.Root(env, "spire-server", issuercmd.Long)), append([]string{"validate"}, args...))
	return out.String(), errOut.String(), code
}

// refused are the server's files of SPIRE's repository that are refused, each with the faults to be named, one a line, in the
// order of their lines; "…" is anything. All others are taken.
var refused = map[string][]string{
	// Lanyard serves and fetches no bundles yet.
	"conf/server/server_full.conf": {`server.federation.bundle_endpoint: known to SPIRE, …`, `server.federation.federates_with "domain1.test": known to SPIRE, …`,
		`plugins.UpstreamAuthority "ejbca": known to SPIRE, not supported yet; supported: disk, spire; remove it`},
	"test/integration/suites/admin-endpoints/conf/domain-a/server/server.conf":                      {`…bundle_endpoint: …`, `…federates_with "domain-b.test": …`},
	"test/integration/suites/admin-endpoints/conf/domain-b/server/server.conf":                      {`…bundle_endpoint: …`, `…federates_with "domain-a.test": …`},
	"test/integration/suites/envoy-sds-v3-spiffe-auth/conf/downstream-federated/server/server.conf": {`…bundle_endpoint: …`},
	"test/integration/suites/envoy-sds-v3-spiffe-auth/conf/upstream/server/server.conf":             {`…bundle_endpoint: …`},
	"test/integration/suites/ghostunnel-federation/conf/downstream/server/server.conf":              {`…bundle_endpoint: …`, `…federates_with "spiffe://upstream-domain.test": …`},
	"test/integration/suites/ghostunnel-federation/conf/upstream/server/server.conf":                {`…bundle_endpoint: …`, `…federates_with "downstream-domain.test": …`},

	// Features that come later.
	"test/integration/suites/fetch-wit-svids/conf/server/server.conf": {`server.experimental.feature_flags: "wit-svid": known to SPIRE, …`},

	// Broken on purpose, or templates of SPIRE's own tests.
	"test/fixture/config/server_bad_nested_bundle_endpoint_acme_block.conf": {`…bundle_endpoint: …`},
	"test/fixture/config/server_bad_nested_bundle_endpoint_block.conf":      {`…bundle_endpoint: …`},
	"test/fixture/config/server_bad_nested_federates_with_block.conf":       {`…federates_with "test1": …`, `…federates_with "test2": …`},
	"test/fixture/config/server_bad_nested_ca_subject_block.conf":           {`unknown key "unknown_option1" in server.ca_subject; …`, `unknown key "unknown_option2" …`},
	"test/fixture/config/server_bad_nested_experimental_block.conf":         {`unknown key "unknown_option1" in server.experimental; …`, `unknown key "unknown_option2" …`},
	"test/fixture/config/server_bad_nested_federation_block.conf":           {`unknown key "unknown_option1" in server.federation; …`, `unknown key "unknown_option2" …`},
	"test/fixture/config/server_bad_ratelimit_block.conf":                   {`unknown key "unknown_option1" in server.ratelimit; …`, `unknown key "unknown_option2" …`},
	"test/fixture/config/server_bad_server_block.conf":                      {`unknown key "unknown_option1" in server; …`, `unknown key "unknown_option2" …`},
	"test/fixture/config/server_good_templated.conf":                        {`server.trust_domain: "$TEST_DATA_TRUST_DOMAIN": environment variables are filled in with -expandEnv only`},
	"test/fixture/config/server_run_start_posix.conf":                       {`data_dir is missing: …`}, // of the command line there
	"test/fixture/config/server_run_windows.conf":                           {`data_dir is missing: …`},
	"test/fixture/config/server_run_crash_posix.conf":                       {`data_dir is missing: …`, `…cert_file_path is missing: …`, `…key_file_path is missing: …`},
	"test/integration/suites/spire-server-cli/conf/server/server_bad.conf":  {`…plugin_data_file: config file conf/server/x509pop.conf does not exist`, `…`, `…`},
	"test/integration/suites/entries/conf/server/server.conf":               {`server.experimental.events_based_cache: the value needs quotes: "EVENTS_BASED_CACHE"`},
	"test/fixture/config/server_good_posix.conf":                            {`…bundle_endpoint: …`, `…`, `…`, `…`, `…`, `unknown block "plugin_type_server" in plugins; …`, `…`, `…`},
	"test/fixture/config/server_good_windows.conf":                          {`…bundle_endpoint: …`, `…`, `…`, `…`, `…`, `unknown block "plugin_type_server" in plugins; …`, `…`, `…`},
}

// Each file for a server in SPIRE's repository is taken, or refused with all that is wrong with it, by name.
func TestFilesOfSPIREsRepository(t *testing.T) {
	root := os.Getenv("LANYARD_PEERS_SRC")
	if root == "" {
		t.Skip("LANYARD_PEERS_SRC names no folder with SPIRE's source")
	}
	root = filepath.Join(root, "spire")
	found := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".conf") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !regexp.MustCompile(`(?m)^\s*server\s*(=\s*)?\{`).Match(text) {
			return err
		}
		rel, err := filepath.Rel(root, path)
		found++
		t.Run(rel, func(t *testing.T) { checkSPIREFile(t, rel, text) })
		return err
	})
	if err != nil || found < 50 {
		t.Fatalf("%d files, %v", found, err)
	}
}

// named are files that SPIRE's tests make.
var named = regexp.MustCompile(`"[^"]*/agent-cacert\.pem"`)

func checkSPIREFile(t *testing.T, rel string, text []byte) {
	t.Chdir(t.TempDir())
	bundle, err := testca.New(t, "example.org").Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("agent-cacert.pem", bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("c.conf", named.ReplaceAll(text, []byte(`"agent-cacert.pem"`)), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := validate(t, cli.SPIREServer, "-config", "c.conf")
	var got []string
	for line := range strings.Lines(stderr) {
		if fault, ok := strings.CutPrefix(line, "Error: "); ok {
			_, fault, _ = strings.Cut(strings.TrimSpace(fault), ": ")
			got = append(got, fault)
		}
	}
	want := refused[rel]
	if len(want) == 0 {
		if code != 0 || stdout != "SPIRE server configuration file is valid.\n" {
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
