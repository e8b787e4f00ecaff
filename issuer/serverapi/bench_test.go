package serverapi

import (
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
)

// BenchmarkBatchNewX509SVID is what an SVID costs, asked for as agents do: over
// TLS, 500, 50 or one at a time. cpu-ms/svid is user and system time of the
// whole process, the client's part included; SPIRE takes 0.33-0.46 in batches
// and 0.7-0.85 singly, without the client's.
func BenchmarkBatchNewX509SVID(b *testing.B) {
	for _, size := range []int{1, 50, 500} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := newRigWith(b, quiet)
			svid := r.join()
			entry := r.entry(registration.Entry{SPIFFEID: spiffeID("/web"), ParentID: svid.ID})
			req := &svidv1.BatchNewX509SVIDRequest{}
			for range size {
				req.Params = append(req.Params, &svidv1.NewX509SVIDParams{EntryId: entry, Csr: newCSR(b, newKey(b))})
			}
			client := svidv1.NewSVIDClient(r.as(svid))
			b.ReportAllocs()
			start := cpuTime(b)
			n := 0
			for b.Loop() {
				resp, err := client.BatchNewX509SVID(b.Context(), req)
				must(b, err)
				if resp.Results[size-1].Svid == nil {
					b.Fatal(resp.Results[size-1].Status)
				}
				n += size
			}
			b.ReportMetric(float64(cpuTime(b)-start)/1e6/float64(n), "cpu-ms/svid")
		})
	}
}

// BenchmarkJoin is what one join costs, its TLS connection included.
func BenchmarkJoin(b *testing.B) {
	r := newRigWith(b, quiet)
	key := newKey(b)
	tokens := make(chan string, 1)
	client := agentv1.NewAgentClient(r.local())
	var spent time.Duration
	n := 0
	for b.Loop() {
		token, err := client.CreateJoinToken(b.Context(), &agentv1.CreateJoinTokenRequest{Ttl: 600})
		must(b, err)
		tokens <- token.GetValue()
		start := cpuTime(b)
		_, err = r.attest(<-tokens, key)
		must(b, err)
		spent += cpuTime(b) - start
		n++
	}
	b.ReportMetric(float64(spent)/1e6/float64(n), "cpu-ms/join")
}

// quiet keeps the log as it is in service.
func quiet(d *Deps) {
	d.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	d.Limits.Attestation = true
}

// cpuTime is what the process has used of the processors.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage syscall.Rusage
	must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkPoll is what a call of an idle agent costs that polls: authorized,
// answered and not logged.
func BenchmarkPoll(b *testing.B) {
	r := newRigWith(b, quiet)
	svid := r.join()
	r.entry(registration.Entry{SPIFFEID: spiffeID("/web"), ParentID: svid.ID})
	client := entryv1.NewEntryClient(r.as(svid))
	b.ReportAllocs()
	start := cpuTime(b)
	n := 0
	for b.Loop() {
		_, err := client.GetAuthorizedEntries(b.Context(), &entryv1.GetAuthorizedEntriesRequest{})
		must(b, err)
		n++
	}
	b.ReportMetric(float64(cpuTime(b)-start)/1e3/float64(n), "cpu-us/call")
}
