package agentcmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/attest"
)

// attestorOf is what an agent with the file and the arguments joins with.
func attestorOf(t *testing.T, plugins, stdin string, args ...string) (upstream.Attestor, error) {
	t.Helper()
	env := &cli.Env{Stdin: strings.NewReader(stdin), Stdout: os.Stderr, Stderr: os.Stderr, Getenv: func(string) string { return "" }, Root: true}
	conf := filepath.Join(t.TempDir(), "agent.hcl")
	text := `agent {
  trust_domain = "example.org"
  server_address = "127.0.0.1"
  insecure_bootstrap = true
  data_dir = "data"
}
` + plugins
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var f flags
	cmd := &cobra.Command{Use: "run", RunE: func(*cobra.Command, []string) error { return nil }}
	f.add(env, cmd)
	if err := cmd.ParseFlags(append([]string{"--config", conf}, args...)); err != nil {
		t.Fatal(err)
	}
	s, err := f.settings(t.Context(), env)
	return s.agent.Attestor, err
}

func TestFileAndFlagsChooseTheAttestor(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{"token": "of-a-file\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const pop = `plugins { NodeAttestor "x509pop" { plugin_data { private_key_path = "k" certificate_path = "c" intermediates_path = "i" } } }`
	for name, test := range map[string]struct {
		plugins, stdin string
		args           []string
		want           upstream.Attestor
	}{
		"nothing":        {"", "", nil, attest.JoinToken{}},
		"a flag":         {"", "", []string{"--joinToken", "of-a-flag"}, attest.JoinToken{Token: attest.Token{Value: "of-a-flag"}}},
		"standard input": {"", "of-stdin\n", []string{"--joinTokenFile", "-"}, attest.JoinToken{Token: attest.Token{Value: "of-stdin"}}},
		"a file":         {"", "", []string{"--joinTokenFile", "token"}, attest.JoinToken{Token: attest.Token{File: "token"}}},
		"join_key": {`plugins { NodeAttestor "join_key" { plugin_data { token_file = "token" } } }`, "", nil,
			&attest.JoinKey{Dir: "data", Token: attest.Token{File: "token"}}},
		"join_key by flags": {"", "", []string{"--nodeAttestor", "join_key", "--joinTokenFile", "token"},
			&attest.JoinKey{Dir: "data", Token: attest.Token{File: "token"}}},
		"x509pop":              {pop, "", nil, attest.X509POP{PrivateKeyPath: "k", CertificatePath: "c", IntermediatesPath: "i"}},
		"x509pop with a token": {pop, "", []string{"--joinToken", "of-a-flag"}, attest.JoinToken{Token: attest.Token{Value: "of-a-flag"}}},
		"x509pop of a Workload API": {`plugins { NodeAttestor "x509pop" { plugin_data { spiffe_endpoint_socket = "/run/api.sock" } } }`, "", nil,
			attest.X509POP{EndpointSocket: "unix:///run/api.sock"}},
		"k8s_psat": {`plugins { NodeAttestor "k8s_psat" { plugin_data { cluster = "c1" } } }`, "", nil,
			attest.K8sPSAT{Cluster: "c1", TokenPath: attest.DefaultTokenPath}},
	} {
		got, err := attestorOf(t, test.plugins, test.stdin, test.args...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(test.want, got, cmpopts.IgnoreUnexported(attest.JoinKey{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	for want, test := range map[string]struct {
		stdin string
		args  []string
	}{
		"-joinTokenFile -: standard input: is empty": {"", []string{"--joinTokenFile", "-"}},
		"standard input: join token must be":         {"secret secret", []string{"--joinTokenFile", "-"}},
		"can't be combined":                          {"", []string{"--joinToken", "a", "--joinTokenFile", "b"}},
		"no such file or directory":                  {"", []string{"--joinTokenFile", "b"}},
		`-nodeAttestor "x509pop": want join_token`:   {"", []string{"--nodeAttestor", "x509pop"}},
	} {
		if _, err := attestorOf(t, "", test.stdin, test.args...); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Where the agent has joined, the token's file may be gone.
func TestTokenFileMayBeGoneOnceJoined(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("data", 0o700); err != nil {
		t.Fatal(err)
	}
	for file, args := range map[string][]string{
		upstream.DataFile: {"--joinTokenFile", "gone"},
		attest.KeyFile:    {"--joinTokenFile", "gone", "--nodeAttestor", "join_key"},
	} {
		if _, err := attestorOf(t, "", "", args...); err == nil {
			t.Errorf("before it joined: no error with %v", args)
		}
		if err := os.WriteFile(filepath.Join("data", file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := attestorOf(t, "", "", args...); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}
