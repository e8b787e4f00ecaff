package metrics_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

func TestAConnectionAllocatesNothing(t *testing.T) {
	tunnel := served(t).Tunnel("web", record.Inbound)
	rec := connection(tunnel, "one.test", record.Closed)
	if n := testing.AllocsPerRun(100, func() {
		tunnel.Accepted()
		tunnel.Established(rec)
		tunnel.Counters(rec).Forward.Add(1)
		tunnel.Ended(rec)
	}); n != 0 {
		t.Errorf("%v allocations a connection", n)
	}
}

func TestCountingAndScrapingTogether(t *testing.T) {
	s := served(t)
	s.Identities(func() []metrics.IdentityStatus { return []metrics.IdentityStatus{status()} })
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			tunnel := s.Tunnel("web", record.Inbound)
			for n := range 50 {
				connection(tunnel, fmt.Sprintf("d%d.test", (n+i)%55), record.Closed)
				refused(tunnel, "x.test")
			}
		})
	}
	for range 10 {
		get(t, s, metrics.PathPrometheus)
		get(t, s, metrics.PathJSON)
	}
	all.Wait()
	wantLines(t, get(t, s, metrics.PathPrometheus), `lanyard_sidecar_open_connections{direction="inbound",tunnel="web"} 0`,
		`lanyard_sidecar_accepted_connections_total{direction="inbound",tunnel="web"} 400`)
	if n := strings.Count(get(t, s, metrics.PathPrometheus), `reason="closed"`); n > 52 {
		t.Errorf("%d trust domains", n)
	}
}

func BenchmarkConnection(b *testing.B) {
	tunnel := served(b).Tunnel("web", record.Inbound)
	rec := connection(tunnel, "one.test", record.Closed)
	b.ReportAllocs()
	for b.Loop() {
		tunnel.Accepted()
		tunnel.Established(rec)
		tunnel.Ended(rec)
	}
}
