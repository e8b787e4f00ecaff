package nodeagent_test

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/metadata"

	"github.com/lanyard-mtls/lanyard/internal/health"
	"github.com/lanyard-mtls/lanyard/internal/metrics"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
)

func get(t *testing.T, addr net.Addr, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + addr.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// What the agent counts is its own: one waiting workload is one connection, one
// open stream, and the SVIDs there are.
func TestMetricsAndHealthAreServed(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	cfg := config(t, s, s.Token("tok", time.Hour))
	cfg.Metrics, cfg.Health = metrics.Config{Prometheus: &metrics.Listener{}}, health.Config{Enabled: true}
	cfg.Sockets = []nodeagent.WorkloadSocket{{Name: "web", Path: filepath.Join(filepath.Dir(cfg.AdminSocketPath), "web.sock"), UID: -1, GID: -1}}
	a := start(t, cfg)
	a.awaitHealthy(t)
	for _, path := range []string{cfg.SocketPath, cfg.Sockets[0].Path} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "true")
		stream, err := workloadpb.NewSpiffeWorkloadAPIClient(a.dial(t, path)).FetchX509SVID(ctx, &workloadpb.X509SVIDRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if code, body := get(t, a.addrs.Health, "/ready"); code != http.StatusOK {
		t.Errorf("ready: %d %s", code, body)
	}
	_, page := get(t, a.addrs.Metrics, "/metrics")
	for _, series := range []string{"lanyard_agent_entries", "lanyard_agent_svids", "lanyard_agent_streams", "lanyard_agent_attestation_seconds_count", "spire_agent_"} {
		if !strings.Contains(page, series) {
			t.Errorf("no %s in:\n%s", series, page)
		}
	}
	// The operator's connection, which awaited health, is one too.
	if got := value(page, "lanyard_agent_connections"); got != "3" {
		t.Errorf("%q connections, want 3: two workloads and the operator", got)
	}
}

// value returns that of the first sample of a metric, "" if there is none.
func value(page, name string) string {
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			fields := strings.Fields(line)
			return fields[len(fields)-1]
		}
	}
	return ""
}
