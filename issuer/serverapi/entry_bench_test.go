package serverapi

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// BenchmarkBatchCreateEntry is what an entry costs to create, over the admin
// socket. cpu-us/entry is user and system time of the whole process, the
// client's part included; SPIRE creates 930 a second at 1 ms each, without it.
func BenchmarkBatchCreateEntry(b *testing.B) {
	for _, size := range []int{1, 50, 500, 5000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := newRigWith(b, quiet)
			c := entryv1.NewEntryClient(r.local())
			n := 0
			start := cpuTime(b)
			for b.Loop() {
				createMany(b, c, n, size)
				n += size
			}
			b.ReportMetric(float64(cpuTime(b)-start)/1e3/float64(n), "cpu-us/entry")
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func createMany(b *testing.B, c entryv1.EntryClient, from, size int) {
	b.Helper()
	req := &entryv1.BatchCreateEntryRequest{OutputMask: &types.EntryMask{}}
	for i := range size {
		e := plainEntry(fmt.Sprintf("/ns/team-%d/sa/workload-%d", i%100, from+i))
		e.ParentId.Path = fmt.Sprintf("/spire/agent/k8s_psat/cluster/node-%d", i%50)
		e.Selectors = []*types.Selector{{Type: "k8s", Value: fmt.Sprintf("ns:team-%d", i%100)}, {Type: "k8s", Value: fmt.Sprintf("sa:workload-%d", from+i)}}
		req.Entries = append(req.Entries, e)
	}
	resp, err := c.BatchCreateEntry(b.Context(), req)
	must(b, err)
	for _, result := range resp.Results {
		if result.Status.Code != 0 {
			b.Fatal(result.Status)
		}
	}
}

// BenchmarkHeapOfEntry is how much memory an entry holds, in the index and in
// etcd, after 100,000 of them.
func BenchmarkHeapOfEntry(b *testing.B) {
	for b.Loop() {
		r := newRigWith(b, quiet)
		c := entryv1.NewEntryClient(r.local())
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		for n := 0; n < 100_000; n += 1000 {
			createMany(b, c, n, 1000)
		}
		b.ReportMetric(float64(heap()-before)/100_000, "heap-B/entry")
	}
}
