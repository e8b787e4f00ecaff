package issuercmd_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// notes validates a file that is good, and gives what is noted of it.
func notes(t *testing.T, text string) string {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("c.conf", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := validate(t, cli.SPIREServer, "-config", "c.conf")
	if code != 0 || stdout != "SPIRE server configuration file is valid.\n" {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	return stderr
}

// A file with all that does nothing here, each told once with its line.
func TestWhatDoesNothingIsNoted(t *testing.T) {
	got := notes(t, `
server {
  trust_domain = "example.org"
  data_dir     = "./.data"
  bind_address = "localhost"
  agent_ttl    = "48h"
  ca_subject {
  }
  max_attested_node_info_staleness = "10s"
  prune_tofu_nodes = true
  profiling_freq   = 60
  profiling_names  = ["heap"]
  federation {}
  experimental {
    cache_reload_interval = "5s"
    events_based_cache    = true
    named_pipe_name       = "\\x"
    require_pq_kem        = true
  }
}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type "aws_postgres" {
        region = "x"
      }
    }
  }
  KeyManager "memory" {
    plugin_data = {}
  }
  NodeAttestor "aws_iid" { enabled = false }
}
telemetry {
  Statsd = [
    { address = "localhost:8125" },
    { address = "localhost:8126" },
  ]
  InMem {}
}
`)
	want := `Note: c.conf:6: server.agent_ttl 48h0m0s: some will live shorter, as the authority that signs them ends first; to prevent that, want at most a sixth of ca_ttl and 168h: 4h0m0s
Note: c.conf:7: server.ca_subject is empty: the default is used, C=US, O=SPIFFE
Note: c.conf:9: server.max_attested_node_info_staleness is not used: what is known of agents is always current
Note: c.conf:10: server.prune_tofu_nodes does nothing without prune_attested_nodes_expired_for
Note: c.conf:11: server.profiling_freq is not used: profiles are not written to files; fetch them from profiling_port
Note: c.conf:12: server.profiling_names is not used: profiles are not written to files; fetch them from profiling_port
Note: c.conf:15: server.experimental.cache_reload_interval is not used: there is no cache to reload: changes arrive as they are made
Note: c.conf:16: server.experimental.events_based_cache is not used: changes always arrive as events
Note: c.conf:17: server.experimental.named_pipe_name is not used: it is for Windows: the admin socket is socket_path
Note: c.conf:22: plugins.DataStore "sql" is not used: records are kept in etcd, below data_dir; take those of a running spire-server over with "lanyard issuer import"
Note: c.conf:29: plugins.KeyManager "memory": every start makes new authorities, and agents that are away meanwhile have to join again; with "disk" they don't
Note: c.conf:37: telemetry.Statsd is not used: metrics are not sent to StatsD; Prometheus { port = 9988 } serves them
Note: c.conf:39: telemetry.InMem is not used: metrics are not printed on SIGUSR1; Prometheus { port = 9988 } serves them
`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("(-want +got) %s", diff)
	}
}

// The shape is that of the file which the Kubernetes charts for SPIRE make.
func TestJSONOfTheChartsIsTaken(t *testing.T) {
	got := notes(t, `{
  "health_checks": {"bind_address": "0.0.0.0", "bind_port": "8080", "listener_enabled": true, "live_path": "/live", "ready_path": "/ready"},
  "plugins": {
    "DataStore": [{"sql": {"plugin_data": {"connection_string": "/run/spire/data/datastore.sqlite3", "database_type": "sqlite3"}}}],
    "KeyManager": [{"disk": {"plugin_data": {"keys_path": "/run/spire/data/keys.json"}}}],
    "NodeAttestor": [{"join_token": {"plugin_data": {}}}],
    "CredentialComposer": {"uniqueid": {"plugin_data": {}}}
  },
  "server": {
    "audit_log_enabled": false,
    "bind_address": "0.0.0.0", "bind_port": "8081",
    "ca_key_type": "rsa-2048", "ca_subject": [{"common_name": "example.org", "country": ["NL"], "organization": ["Example"]}], "ca_ttl": "24h",
    "data_dir": "/run/spire/data",
    "default_jwt_svid_ttl": "1h", "default_x509_svid_ttl": "4h",
    "experimental": {"cache_reload_interval": "5s"},
    "jwt_issuer": "https://oidc-discovery.example.org",
    "log_level": "info",
    "ratelimit": {"attestation": false},
    "trust_domain": "example.org"
  },
  "telemetry": [{"Prometheus": [{"host": "0.0.0.0", "port": 9988}]}]
}`)
	if !strings.HasPrefix(got, "Note: c.conf:4: plugins.DataStore ") || strings.Count(got, "\n") != 2 {
		t.Error(got)
	}
}

func TestPluginDataFileIsRead(t *testing.T) {
	t.Chdir(t.TempDir())
	conf := "server {\n trust_domain = \"example.org\"\n data_dir = \"d\"\n}\nplugins {\n KeyManager \"disk\" {\n  plugin_data_file = \"keys.conf\"\n }\n NodeAttestor \"x509pop\" {\n  plugin_data_file = \"pop.conf\"\n }\n}\n"
	for name, text := range map[string]string{"c.conf": conf, "keys.conf": "keys_path = \"k.json\"\n", "pop.conf": "\nmode = \"pki\"\nmax_intermediates = -1\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, stderr, code := validate(t, cli.Lanyard, "-config", "c.conf")
	want := "Error: pop.conf:3: max_intermediates: -1: want 1 or more\nError: pop.conf:2: mode: \"pki\": want external_pki or spiffe\n"
	if code != 1 || stderr != want {
		t.Errorf("exit code %d, got %swant %s", code, stderr, want)
	}
}

func TestFlagsOverrideTheFile(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("c.conf", []byte("server {\n trust_domain = \"$TD\"\n bind_port = 99999\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := validate(t, cli.SPIREServer, "-config", "c.conf", "-expandEnv", "-serverPort", "8081", "-dataDir", "d")
	if code != 1 || !strings.Contains(stderr, "trust_domain: is empty") {
		t.Errorf("%d %s", code, stderr)
	}
	if err := os.WriteFile("c.conf", []byte("server {\n bind_port = 99999\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := validate(t, cli.SPIREServer, "-config", "c.conf", "-trustDomain", "example.org", "-serverPort", "8081", "-dataDir", "d"); code != 0 {
		t.Errorf("%d %s", code, stderr)
	}
}
