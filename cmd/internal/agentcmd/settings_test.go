package agentcmd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/health"
	"github.com/lanyard-mtls/lanyard/internal/metrics"
	"github.com/lanyard-mtls/lanyard/internal/telemetry"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/trust"
	"github.com/lanyard-mtls/lanyard/sds"
)

// settingsOf reads a file and arguments, as root.
func settingsOf(t *testing.T, text string, args ...string) (settings, error) {
	t.Helper()
	env := &cli.Env{Stdin: strings.NewReader(""), Stdout: os.Stderr, Stderr: os.Stderr, Getenv: func(string) string { return "" }, Root: true}
	if text != "" {
		path := filepath.Join(t.TempDir(), "agent.hcl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config", path}, args...)
	}
	var f flags
	cmd := &cobra.Command{Use: "run", RunE: func(*cobra.Command, []string) error { return nil }}
	f.add(env, cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return f.settings(t.Context(), env)
}

const everything = `
agent {
  trust_domain     = "example.org"
  server_addresses = ["a.example.org:8081", "[::1]:8082"]
  data_dir         = "data"
  socket_path      = "public/api.sock"
  admin_socket_path = "admin/api.sock"
  socket "web" {
    path  = "web/api.sock"
    mode  = "0660"
    user  = "root"
    group = 0
    only  = true
  }
  socket "db" {
    path = "db.sock"
  }
  trust_bundle_url         = "http://localhost/bundle"
  trust_bundle_unix_socket = "bundles.sock"
  trust_bundle_format      = "spiffe"
  rebootstrap_mode  = "auto"
  rebootstrap_delay = "3m"
  workload_x509_svid_key_type = "ec-p384"
  availability_target         = "48h"
  x509_svid_cache_max_size    = 7
  jwt_svid_cache_max_size     = 8
  authorized_delegates        = ["spiffe://example.org/delegate"]
  allow_unauthenticated_verifiers = true
  allowed_foreign_jwt_claims  = ["email"]
  disable_workload_api        = true
  sds {
    default_svid_name = "me"
  }
  log_file     = "agent.log"
  log_level    = "debug"
  log_format   = "json"
  log_source_location = true
  log_selectors = ["unix", "k8s:ns"]
  profiling_enabled = true
  profiling_port    = 6060
  experimental {
    sync_interval               = "9s"
    jwt_svid_cache_hit_timeout  = "10s"
    use_sync_authorized_entries = false
    require_pq_kem              = true
    ratelimit {
      fetch_x509_svid = 3
      fetch_secrets   = 0
    }
  }
}
plugins {
  KeyManager "memory" {}
  NodeAttestor "x509pop" {
    plugin_data {
      private_key_path = "k"
      certificate_path = "c"
    }
  }
  WorkloadAttestor "unix" {
    plugin_data {
      discover_workload_path = true
      workload_size_limit    = -1
    }
  }
  WorkloadAttestor "docker" {}
  WorkloadAttestor "k8s" {
    enabled = false
  }
}
telemetry {
  Prometheus {
    port = 9988
  }
}
health_checks {
  listener_enabled = true
  bind_port        = "8080"
}
`

func TestEachSettingReachesTheAgent(t *testing.T) {
	got, err := settingsOf(t, everything)
	if err != nil {
		t.Fatal(err)
	}
	td := spiffeid.RequireTrustDomainFromString("example.org")
	want := nodeagent.Config{
		TrustDomain: td, DataDir: "data", SocketPath: "public/api.sock", AdminSocketPath: "admin/api.sock",
		ServerAddresses: []string{"a.example.org:8081", "[::1]:8082"},
		Sockets: []nodeagent.WorkloadSocket{
			{Name: "web", Path: "web/api.sock", Mode: 0o660, Only: true},
			{Name: "db", Path: "db.sock", Mode: 0o777, UID: -1, GID: -1},
		},
		TrustSource: trust.URL{TrustDomain: td, URL: "http://localhost/bundle", UnixSocket: "bundles.sock", Format: "spiffe"},
		Rebootstrap: "auto", RebootstrapDelay: 3 * time.Minute,
		WorkloadKeyType: "ec-p384", AvailabilityTarget: 48 * time.Hour, X509SVIDCacheMaxSize: 7, JWTSVIDCacheMaxSize: 8,
		AuthorizedDelegates: []spiffeid.ID{spiffeid.RequireFromString("spiffe://example.org/delegate")}, AllowUnauthenticatedVerifiers: true,
		AllowedForeignJWTClaims: []string{"email"}, DisableWorkloadAPI: true, LogSelectors: []string{"unix", "k8s:ns"},
		SyncInterval: 9 * time.Second, JWTSVIDCacheHitTimeout: 10 * time.Second, NoSyncAuthorizedEntries: true, RequirePQKEM: true,
		RateLimits: map[string]int{"fetch_x509_svid": 3}, MemoryKeys: true, DiscoverWorkloadPath: true, WorkloadSizeLimit: -1,
		Metrics: metrics.Config{Prometheus: &metrics.Listener{Port: 9988}, HostnameLabel: true},
		Health:  health.Config{Enabled: true, Port: 8080},
		Version: agentVersion(),
	}
	if diff := cmp.Diff(want, got.agent, cmp.AllowUnexported(spiffeid.ID{}, spiffeid.TrustDomain{}), cmpopts.IgnoreFields(nodeagent.Config{}, "Attestor")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&sds.Options{SVIDName: "me"}, got.sds); diff != "" {
		t.Error(diff)
	}
	process := spireconf.Process{
		Log:       telemetry.Config{Level: "debug", Format: "json", File: "agent.log", Source: true},
		Profiling: spireconf.Profiling{Enabled: true, Port: 6060},
	}
	if diff := cmp.Diff(process, got.process); diff != "" {
		t.Error(diff)
	}
	if len(got.attestors) != 1 {
		t.Errorf("%d workload attestors besides unix, want docker's", len(got.attestors))
	}
}

const little = `agent {
  trust_domain     = "example.org"
  server_address   = "a.example.org"
  data_dir         = "data"
  insecure_bootstrap = true
  disable_sds_api  = true
  rebootstrap_mode = "never"
}
`

func TestFlagsGoBeforeTheFile(t *testing.T) {
	got, err := settingsOf(t, everything, "--serverAddress", "b.example.org", "--serverPort", "99", "--trustBundleUrl", "https://b.example.org/bundle", "--trustBundleFormat", "pem",
		"--disableWorkloadAPI=false", "--disableSDSAPI", "--allowUnauthenticatedVerifiers=false", "--rebootstrapMode", "always", "--rebootstrapDelay", "1m",
		"--takeOver", "--trustDomain", "other.test", "--dataDir", "d2", "--socketPath", "p2/s", "--logLevel", "warn")
	if err == nil || !strings.Contains(err.Error(), "spiffe://example.org/delegate is no workload of other.test") {
		t.Errorf("%v, want that delegates are of the trust domain", err)
	}
	got, err = settingsOf(t, little, "--trustBundleUrl", "https://b.example.org/bundle", "--disableWorkloadAPI", "--disableSDSAPI=false",
		"--allowUnauthenticatedVerifiers", "--rebootstrapMode", "auto", "--rebootstrapDelay", "1m", "--takeOver", "--serverPort", "99", "--trustBundleFormat", "spiffe")
	if err != nil {
		t.Fatal(err)
	}
	td := spiffeid.RequireTrustDomainFromString("example.org")
	want := nodeagent.Config{
		TrustDomain: td, DataDir: "data", SocketPath: "/run/lanyard/agent/public/api.sock", AdminSocketPath: "/run/lanyard/agent/admin/api.sock",
		ServerAddress: "a.example.org:99", TrustSource: trust.URL{TrustDomain: td, URL: "https://b.example.org/bundle", Format: "spiffe"},
		DisableWorkloadAPI: true, AllowUnauthenticatedVerifiers: true, Rebootstrap: "auto", RebootstrapDelay: time.Minute, TakeOver: true, Version: agentVersion(),
	}
	if diff := cmp.Diff(want, got.agent, cmp.AllowUnexported(spiffeid.ID{}, spiffeid.TrustDomain{}), cmpopts.IgnoreFields(nodeagent.Config{}, "Attestor")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.sds == nil {
		t.Error("SDS is off")
	}
	if got, err = settingsOf(t, little); err != nil || got.sds != nil || !got.agent.InsecureBootstrap {
		t.Errorf("%v, SDS %v", err, got.sds)
	}
}

// The agent keeps the bundle itself: once it has joined, the file may be gone. While it is there, it must be one.
func TestBundleFileMayBeGoneOnceJoined(t *testing.T) {
	t.Chdir(t.TempDir())
	td := spiffeid.RequireTrustDomainFromString("example.org")
	const of = "agent {\n trust_domain = \"example.org\"\n server_address = \"a\"\n data_dir = \"data\"\n trust_bundle_path = \"bundle.pem\"\n}\n"
	if _, err := settingsOf(t, of); err == nil || !strings.Contains(err.Error(), "agent.hcl:5: agent.trust_bundle_path: bundle.pem: no such file or directory; it is the output of") {
		t.Errorf("before it joined: %v", err)
	}
	if err := errors.Join(os.Mkdir("data", 0o700), os.WriteFile(filepath.Join("data", upstream.DataFile), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if s, err := settingsOf(t, of); err != nil || s.agent.TrustBundle != nil || s.agent.TrustSource != nil {
		t.Errorf("%v, bundle %q, source %v", err, s.agent.TrustBundle, s.agent.TrustSource)
	}
	if err := os.WriteFile("bundle.pem", []byte("no bundle"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := settingsOf(t, of); err == nil || !strings.Contains(err.Error(), "agent.hcl:5: agent.trust_bundle_path: bundle.pem: trust bundle") {
		t.Errorf("no bundle: %v", err)
	}
	content, err := testca.New(t, td.Name()).Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("bundle.pem", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := settingsOf(t, of); err != nil || len(s.agent.TrustBundle) == 0 || s.agent.TrustSource != nil {
		t.Errorf("%v, bundle %q, source %v", err, s.agent.TrustBundle, s.agent.TrustSource)
	}
	if s, err := settingsOf(t, of, "--rebootstrapMode", "auto"); err != nil || s.agent.TrustBundle != nil || s.agent.TrustSource != (trust.File{TrustDomain: td, Path: "bundle.pem"}) {
		t.Errorf("an agent that begins anew: %v, bundle %q, source %v", err, s.agent.TrustBundle, s.agent.TrustSource)
	}
}

func TestFlagsThatContradictAreRefused(t *testing.T) {
	for want, args := range map[string][]string{
		"-trustBundle and -trustBundleUrl can't be combined: keep one": {"--trustBundle", "a", "--trustBundleUrl", "https://b"},
		"can't be combined with -insecureBootstrap":                    {"--trustBundleUrl", "https://b", "--insecureBootstrap"},
		`-trustBundleUrl: "http://b": want https://`:                   {"--trustBundleUrl", "http://b"},
		`-trustBundleFormat: "jwks": want pem or spiffe`:               {"--trustBundleUrl", "https://b", "--trustBundleFormat", "jwks"},
		`-rebootstrapMode "sometimes": want never, auto, always`:       {"--rebootstrapMode", "sometimes"},
		`rebootstrap_mode "auto" doesn't go with insecure_bootstrap`:   {"--rebootstrapMode", "auto", "--insecureBootstrap"},
		`rebootstrap_mode "always": an agent that joins by join_token`: {"--rebootstrapMode", "always", "--trustBundleUrl", "https://b"},
		"-trustBundle: no-such.pem: no such file or directory":         {"--trustBundle", "no-such.pem"},
		"port 70000 of the issuer: want 1 to 65535":                    {"--serverPort", "70000", "--insecureBootstrap"},
	} {
		if _, err := settingsOf(t, "", args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

func TestWhatDoesNothingIsNoted(t *testing.T) {
	s, err := settingsOf(t, `agent {
  trust_domain       = "example.org"
  server_address     = "localhost"
  insecure_bootstrap = true
  socket_path        = "public/api.sock"
  rebootstrap_delay  = "10m"
  authorized_delegates = ["spiffe://example.org/delegate"]
  disable_workload_api = true
  disable_sds_api      = true
  profiling_enabled    = true
  profiling_freq       = 60
  profiling_names      = ["heap"]
}
plugins {
  KeyManager "memory" {}
  WorkloadAttestor "docker" {
    plugin_data {
      use_new_container_locator      = true
      verbose_container_locator_logs = true
    }
  }
  WorkloadAttestor "k8s" {
    plugin_data {
      node_name_env = "NO_SUCH_NAME"
    }
  }
}
telemetry {
  Statsd = [{ address = "localhost:8125" }]
  InMem {}
}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`6: agent.rebootstrap_delay does nothing without rebootstrap_mode "auto" or "always"`,
		`7: agent.authorized_delegates does nothing without admin_socket_path`,
		`8: agent.disable_workload_api and disable_sds_api: nothing is served to workloads`,
		`10: agent.profiling_enabled does nothing without profiling_port`,
		`11: agent.profiling_freq is not used: profiles are not written to files; fetch them from profiling_port`,
		`12: agent.profiling_names is not used: profiles are not written to files; fetch them from profiling_port`,
		`15: plugins.KeyManager "memory": the agent joins by join_token, and needs a new token at each start; with "disk" it doesn't`,
		`18: plugins.WorkloadAttestor.docker.plugin_data.use_new_container_locator is not used: containers are found in all known layouts of cgroups`,
		`19: plugins.WorkloadAttestor.docker.plugin_data.verbose_container_locator_logs is not used: "lanyard agent explain -pid N" shows the container of a process`,
		`24: plugins.WorkloadAttestor.k8s.plugin_data.node_name_env: $NO_SUCH_NAME is not set: the kubelet is called 127.0.0.1`,
		`29: telemetry.Statsd is not used: metrics are not sent to StatsD; Prometheus { port = 9988 } serves them`,
		`30: telemetry.InMem is not used: metrics are not printed on SIGUSR1; Prometheus { port = 9988 } serves them`,
	}
	var got []string
	for _, note := range s.process.Notes {
		_, note, _ = strings.Cut(note, "agent.hcl:")
		got = append(got, note)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOneNameForBothKindsOfBundlesIsNoted(t *testing.T) {
	s, err := settingsOf(t, strings.Replace(little, "disable_sds_api  = true", `sds { default_all_bundles_name = "ROOTCA" }`, 1))
	if err != nil || len(s.process.Notes) != 1 || !strings.Contains(s.process.Notes[0], `are both "ROOTCA"`) {
		t.Errorf("%v, %q", err, s.process.Notes)
	}
}
