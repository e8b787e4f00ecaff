package metrics_test

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

func TestJSONHasGhostunnelsNames(t *testing.T) {
	s := metrics.New(metrics.Config{Serve: true, Prefix: "edge"})
	web, db := s.Tunnel("web", record.Inbound), s.Tunnel("db", record.Outbound)
	connection(web, "one.test", record.Closed)
	connection(db, "one.test", record.MaxAge)
	refused(web, "one.test")
	web.Accepted()
	timedOut := &record.Record{Start: time.Now()}
	timedOut.End(record.HandshakeTimeout, nil)
	web.Ended(timedOut)
	web.Accepted()
	for _, target := range []string{metrics.Path, metrics.PathJSON, metrics.Path + "?format=json"} {
		var points []struct {
			Timestamp        int64
			Metric, Hostname string
			Value            float64
		}
		if err := json.Unmarshal([]byte(get(t, s, target)), &points); err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, p := range points {
			got[p.Metric] = p.Value
			if time.Since(time.Unix(p.Timestamp, 0)) > time.Minute || p.Hostname == "" {
				t.Errorf("point %+v", p)
			}
		}
		for name, want := range map[string]float64{"accept.total": 5, "accept.success": 2, "accept.error": 2, "accept.timeout": 1, "conn.open": 1,
			"conn.timeout": 1, "conn.handshake.count": 2, "conn.handshake.min": 2e6, "conn.handshake.max": 2e6, "conn.handshake.mean": 2e6,
			"conn.handshake.99-percentile": 2e6, "conn.lifetime.count": 4} {
			if v, ok := got["edge."+name]; !ok || v != want {
				t.Errorf("%s: edge.%s is %v, %v; want %v", target, name, v, ok, want)
			}
		}
		wantNames(t, "testdata/ghostunnel-json.txt", "edge.", slices.Collect(maps.Keys(got)))
	}
}

// wantNames compares the names with those that ghostunnel 1.11.1 was seen to tell,
// from a file.
func wantNames(t *testing.T, file, prefix string, got []string) {
	t.Helper()
	list, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = strings.TrimPrefix(got[i], prefix)
	}
	slices.Sort(got)
	want := strings.Fields(string(list))
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}
