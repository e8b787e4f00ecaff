package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// faultTTL is the life of SVIDs that are to be renewed within a test.
const faultTTL = 6 * time.Second

// faults is an issuer with our agent, and a workload that waits: this process. Beside its entries there are some that are
// not for it, of which it must never be given anything.
type faults struct {
	*harness.Stage
	t       *testing.T
	issuer  *harness.Issuer
	agent   *harness.Agent
	node    string
	stream  *stream
	entries []string // the IDs of those for this process
}

func newFaults(t *testing.T, spec harness.IssuerSpec, sync string) *faults {
	t.Helper()
	r := newStoppedFaults(t, spec, sync)
	r.agent.Start(r.issuer.Token(r.node))
	return r
}

// newStoppedFaults does not start the agent.
func newStoppedFaults(t *testing.T, spec harness.IssuerSpec, sync string) *faults {
	t.Helper()
	s := harness.NewStage(t, bin)
	issuer := harness.StartIssuer(s, spec)
	r := &faults{Stage: s, t: t, issuer: issuer, agent: harness.NewAgent(issuer, harness.AgentSpec{Sync: sync}), node: issuer.ID("/node")}
	issuer.Entry(r.node, issuer.ID("/wrong/path"), "/nobody/runs/this")
	issuer.Entry(issuer.ID("/other-node"), issuer.ID("/wrong/node"), selfPath(t))
	issuer.Entry(r.node, issuer.ID("/wrong/user"), selfPath(t), "-selector", "unix:uid:4711")
	r.stream = newStream(t, r.agent)
	return r
}

// create registers this process, and returns the entry's ID.
func (r *faults) create(id, ttl string, args ...string) string {
	r.t.Helper()
	r.stream.allow(id)
	if ttl != "" {
		args = append(args, "-x509SVIDTTL", ttl)
	}
	entry := r.issuer.Entry(r.node, id, selfPath(r.t), args...)
	r.entries = append(r.entries, entry)
	return entry
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }

// serves wants a new call to be given this SVID, or any of the ID if there is none.
func (r *faults) serves(limit time.Duration, id string, same *x509svid.SVID) {
	r.t.Helper()
	r.Until(limit, "the SVID of "+id, func(ctx context.Context) error {
		got, err := r.stream.fetch(ctx)
		if err != nil {
			return err
		}
		for _, svid := range got.SVIDs {
			if svid.ID.String() != id {
				continue
			}
			if same != nil && serial(svid) != serial(same) {
				return fmt.Errorf("got another SVID of it: %s, not %s", serial(svid), serial(same))
			}
			return nil
		}
		return fmt.Errorf("got %d others", len(got.SVIDs))
	})
}

// TestFaultsIssuerIsAwayWhenAnSVIDIsDue keeps the issuer away past the half life of an SVID: its workload keeps the last good
// one, and is given a new one once the issuer is back. In a soak it is away for longer than the SVID's whole life.
func TestFaultsIssuerIsAwayWhenAnSVIDIsDue(t *testing.T) {
	t.Parallel()
	r := newFaults(t, harness.IssuerSpec{}, "1s")
	id := r.issuer.ID("/workload")
	r.create(id, seconds(faultTTL))
	svid := r.stream.has(id).DefaultSVID()
	svid = r.stream.renewed(svid) // so that all of its life is before us
	r.issuer.Process.Kill()
	wait(t.Context(), time.Until(svid.Certificates[0].NotAfter)-faultTTL/5)
	r.serves(time.Second, id, svid)
	if soak() {
		wait(t.Context(), time.Until(svid.Certificates[0].NotAfter)+time.Second)
		if got, err := r.stream.fetch(t.Context()); status.Code(err) != codes.Unavailable {
			t.Errorf("with an SVID that has expired: %v, %v, want Unavailable", got, err)
		}
	}
	r.issuer.Start()
	r.stream.renewed(svid)
	r.serves(fetchLimit, id, nil)
}

// TestFaultsAgentServesFromDisk has agents that start while the issuer is away: they serve what the one before had, the
// killed one too. What was deleted meanwhile is gone once the issuer is back.
func TestFaultsAgentServesFromDisk(t *testing.T) {
	t.Parallel()
	r := newFaults(t, harness.IssuerSpec{}, "1s")
	id := r.issuer.ID("/workload")
	r.create(id, "")
	svid := r.stream.has(id).DefaultSVID()
	r.issuer.Process.Kill()
	if err := r.agent.Process.Stop(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	r.agent.Launch("")
	r.serves(10*time.Second, id, svid)
	r.agent.Process.Kill()
	r.agent.Launch("")
	r.serves(10*time.Second, id, svid)
	r.agent.Process.Kill()
	r.issuer.Start()
	r.issuer.Admin("entry", "delete", "-entryID", r.entries[0])
	r.agent.Launch("")
	r.denied()
}

// denied waits until a new call is refused.
func (r *faults) denied() {
	r.t.Helper()
	r.Until(fetchLimit, "PermissionDenied", func(ctx context.Context) error {
		if _, err := r.stream.fetch(ctx); status.Code(err) != codes.PermissionDenied {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

// TestFaultsHangingPrograms stops the issuer, then the agent, with SIGSTOP, and makes changes meanwhile or right after.
func TestFaultsHangingPrograms(t *testing.T) {
	t.Parallel()
	r := newFaults(t, harness.IssuerSpec{}, "1s")
	first, second := r.issuer.ID("/first"), r.issuer.ID("/second")
	r.create(first, seconds(faultTTL))
	svid := r.stream.has(first).DefaultSVID()
	r.issuer.Process.Pause()
	wait(t.Context(), time.Until(svid.Certificates[0].NotAfter)-faultTTL/4) // past when it is due
	r.serves(time.Second, first, nil)
	r.issuer.Process.Resume()
	id := r.create(second, "")
	r.stream.has(first, second)
	r.agent.Process.Pause()
	r.issuer.Admin("entry", "delete", "-entryID", id)
	r.issuer.Admin("entry", "delete", "-entryID", r.entries[0])
	wait(t.Context(), time.Second)
	r.agent.Process.Resume()
	r.stream.denied()
	r.stream.forbid(first)
	r.create(second, "")
	r.stream.has(second)
}

// TestFaultsAgentIsKilledAnywhere kills agents at random moments of their first half second, while entries change.
func TestFaultsAgentIsKilledAnywhere(t *testing.T) {
	t.Parallel()
	r := newFaults(t, harness.IssuerSpec{}, "1s")
	id := r.issuer.ID("/workload")
	r.create(id, "")
	r.stream.has(id)
	r.agent.Process.Kill()
	for i := range kills() {
		r.agent.Launch("")
		wait(t.Context(), rand.N(500*time.Millisecond))
		changing := r.issuer.Entry(r.node, r.issuer.ID("/wrong/changing"), "/nobody/runs/"+strconv.Itoa(i))
		r.issuer.Admin("entry", "delete", "-entryID", changing)
		r.agent.Process.Kill()
	}
	r.agent.Start("")
	r.serves(fetchLimit, id, nil)
	if damaged, _ := filepath.Glob(filepath.Join(r.agent.Data, "*damaged*")); len(damaged) > 0 {
		t.Errorf("kill -9 left damaged state: %v", damaged)
	}
}

// TestFaultsSocketIsDeleted deletes the socket's file: who is connected keeps the stream, and new callers are served again.
func TestFaultsSocketIsDeleted(t *testing.T) {
	t.Parallel()
	r := newFaults(t, harness.IssuerSpec{}, "1s")
	first, second := r.issuer.ID("/first"), r.issuer.ID("/second")
	r.create(first, "")
	r.stream.has(first)
	if err := os.Remove(r.agent.Socket); err != nil {
		t.Fatal(err)
	}
	r.create(second, "")
	r.stream.until("both SVIDs on the stream that was open", func(got *workloadapi.X509Context, err error) error {
		if err != nil {
			return err
		}
		return atLeast(len(got.SVIDs), 2)
	})
	r.Until(fetchLimit, "a new call", func(ctx context.Context) error {
		_, err := r.stream.fetch(ctx)
		return err
	})
}
