package integration

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// TestInteropSPIREAgentConfRunsUnchanged starts a real spire-agent, and then ours, on one agent.conf that uses what SPIRE has:
// both check it alike, serve, and answer at the same places.
func TestInteropSPIREAgentConfRunsUnchanged(t *testing.T) {
	t.Parallel()
	spire := peer(t, "spire-agent")
	t.Run("spire-agent", func(t *testing.T) {
		t.Parallel()
		runConf(t, harness.Tool{Path: spire})
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		runConf(t, harness.Tool{Path: bin + "/lanyard", Prefix: []string{"agent"}})
	})
}

// TestSPIREAgentConfRunsUnchanged is what needs no spire-agent of it.
func TestSPIREAgentConfRunsUnchanged(t *testing.T) {
	t.Parallel()
	runConf(t, harness.Tool{Path: bin + "/lanyard", Prefix: []string{"agent"}})
}

func runConf(t *testing.T, tool harness.Tool) {
	t.Helper()
	s := harness.NewStage(t, bin)
	issuer := harness.StartIssuer(s, harness.IssuerSpec{})
	id := issuer.ID("/workload")
	issuer.Entry(issuer.ID("/node"), id, selfPath(t))
	health, metrics := s.Addr(), s.Addr()
	socket := s.Path("public", "api.sock")
	token := s.WriteFile("token", issuer.Token(issuer.ID("/node"))+"\n")
	conf := s.WriteFile("agent.conf", fullAgentConf(t, issuer, map[string]string{
		"SOCKET": socket, "ADMIN": s.Path("private", "admin.sock"), "DATA": s.Path("data", "x"), "TOKEN": token, "BUNDLE": issuer.BundleFile(),
		"LOG": s.Path("agent.log"), "HEALTH": portOf(t, health), "METRICS": portOf(t, metrics),
	}))
	run := func(args ...string) string { return s.Run(tool.Path, append(tool.Prefix, args...)...) }
	if out := run("validate", "-config", conf, "-expandEnv"); !strings.Contains(out, "onfiguration") {
		t.Errorf("validate: %s", out)
	}
	agent := s.Start("agent", tool.Path, append(tool.Prefix, "run", "-config", conf, "-expandEnv")...)
	s.Until(fetchLimit, "the workload's SVID", func(ctx context.Context) error {
		if !agent.Running() {
			t.Fatalf("the agent ended: %s\n%s", agent.Log.Tail(20), logged(s))
		}
		got, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr("unix://"+socket))
		if err == nil && got.DefaultSVID().ID.String() != id {
			err = fmt.Errorf("got %s", got.DefaultSVID().ID)
		}
		return err
	})
	for _, url := range []string{"http://" + health + "/alive", "http://" + health + "/prepared"} {
		s.Until(fetchLimit, url, func(ctx context.Context) error {
			_, err := harness.Get(ctx, http.DefaultClient, url)
			return err
		})
	}
	s.Until(fetchLimit, "metrics", func(ctx context.Context) error {
		text, err := harness.Get(ctx, http.DefaultClient, "http://"+metrics+"/metrics")
		if err == nil && !strings.Contains(text, "spire_agent_") {
			err = fmt.Errorf("no spire_agent_ in %d bytes", len(text))
		}
		return err
	})
	if out := run("logger", "get", "-socketPath", s.Path("private", "admin.sock")); !strings.Contains(out, "Logger Level : debug") {
		t.Errorf("logger get: %s", out)
	}
	if text := logged(s); !strings.Contains(text, `"level":`) {
		t.Errorf("no JSON in the log file: %q", text)
	}
	if err := agent.Stop(10 * time.Second); err != nil {
		t.Errorf("stopped: %v", err)
	}
}

// logged is what is in the log file.
func logged(s *harness.Stage) string {
	text, _ := os.ReadFile(s.Path("agent.log")) // it may not be there yet
	return string(text)
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// fullAgentConf is an agent.conf with every key of SPIRE's agent that can be set beside the others on one machine.
func fullAgentConf(t *testing.T, issuer *harness.Issuer, values map[string]string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(issuer.Addr)
	if err != nil {
		t.Fatal(err)
	}
	text := `agent {
  admin_socket_path = "ADMIN"
  allow_unauthenticated_verifiers = true
  allowed_foreign_jwt_claims = ["iss"]
  authorized_delegates = ["spiffe://DOMAIN/delegate"]
  availability_target = "24h"
  data_dir = "DATA"
  disable_sds_api = false
  disable_workload_api = false
  insecure_bootstrap = false
  join_token_file = "TOKEN"
  jwt_svid_cache_max_size = 500
  log_file = "LOG"
  log_format = "json"
  log_level = "DEBUG"
  log_selectors = ["unix:uid"]
  log_source_location = true
  rebootstrap_delay = "10m"
  rebootstrap_mode = "never"
  server_address = "ISSUERHOST"
  server_port = ISSUERPORT
  socket_path = "SOCKET"
  trust_bundle_format = "pem"
  trust_bundle_path = "BUNDLE"
  trust_domain = "DOMAIN"
  workload_x509_svid_key_type = "rsa-2048"
  x509_svid_cache_max_size = 500
  profiling_enabled = false
  sds {
    default_svid_name = "mine"
    default_bundle_name = "ours"
    default_all_bundles_name = "everyone's"
    disable_spiffe_cert_validation = true
  }
  experimental {
    sync_interval = "1s"
    jwt_svid_cache_hit_timeout = "10s"
    use_sync_authorized_entries = true
    require_pq_kem = true
    ratelimit {
      fetch_x509_svid = 500
      fetch_jwt_svid = 500
      fetch_x509_bundles = 500
      fetch_jwt_bundles = 500
      stream_secrets = 500
      fetch_secrets = 500
    }
  }
}

plugins {
  KeyManager "memory" {
    plugin_data {}
  }
  NodeAttestor "join_token" {
    plugin_data {}
  }
  WorkloadAttestor "unix" {
    plugin_data {
      discover_workload_path = true
      workload_size_limit = -1
    }
  }
  WorkloadAttestor "docker" {
    plugin_data {
      docker_socket_path = "unix:///nowhere/docker.sock"
      container_id_cgroup_matchers = ["/docker/<id>"]
      use_new_container_locator = false
    }
  }
  WorkloadAttestor "k8s" {
    plugin_data {
      kubelet_read_only_port = 10255
      max_poll_attempts = 5
      poll_retry_interval = "100ms"
      node_name_env = "NODE"
      disable_container_selectors = false
      use_new_container_locator = true
      verbose_container_locator_logs = false
    }
  }
}

telemetry {
  Prometheus {
    host = "127.0.0.1"
    port = METRICS
  }
  EnableTrustDomainLabel = true
  EnableHostnameLabel = false
}

health_checks {
  listener_enabled = true
  bind_address = "127.0.0.1"
  bind_port = "HEALTH"
  live_path = "/alive"
  ready_path = "/prepared"
}
`
	pairs := []string{"DOMAIN", issuer.TrustDomain, "ISSUERHOST", host, "ISSUERPORT", port}
	for name, value := range values {
		pairs = append(pairs, name, value)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
