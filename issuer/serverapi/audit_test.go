package serverapi

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// lines are those of the log that have all the parts.
func (r *rig) lines(parts ...string) (found []string) {
	for line := range strings.Lines(r.log.String()) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

// TestAuditNamesWhatWasSigned wants one line for a batch, with the entry, the
// SPIFFE ID and the serial of each SVID.
func TestAuditNamesWhatWasSigned(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	web := r.entry(registration.Entry{SPIFFEID: spiffeID("/web"), ParentID: svid.ID})
	params := []*svidv1.NewX509SVIDParams{{EntryId: "made-up", Csr: newCSR(t, newKey(t))}}
	for range maxLoggedNames + 5 {
		params = append(params, &svidv1.NewX509SVIDParams{EntryId: web, Csr: newCSR(t, newKey(t))})
	}
	resp, err := svidv1.NewSVIDClient(r.as(svid)).BatchNewX509SVID(t.Context(), &svidv1.BatchNewX509SVIDRequest{Params: params})
	must(t, err)
	lines := r.lines("level=INFO", "SVID/BatchNewX509SVID", "caller="+svid.ID.String(), "code=OK", "done=25 failed=1")
	if len(lines) != 1 {
		t.Fatalf("%d lines in\n%s", len(lines), r.log.String())
	}
	for i, result := range resp.Results[1:] {
		signed, err := svidOf(result.Svid, newKey(t))
		must(t, err)
		want := fmt.Sprintf("%s spiffe://lanyard.test/web %s", web, signed.Certificates[0].SerialNumber)
		if strings.Contains(lines[0], want) != (i < maxLoggedNames) {
			t.Errorf("SVID %d: the line is\n%s", i, lines[0])
		}
	}
	if len(r.lines("item of a call")) != 0 {
		t.Error("items have lines of their own though nobody asked for them")
	}
}

// TestAuditLogOfEveryCall is audit_log_enabled: a line for each call, be it one
// that reads, and for each item of a batch.
func TestAuditLogOfEveryCall(t *testing.T) {
	r := newRigWith(t, func(d *Deps) { d.Audit = true })
	svid := r.join()
	web := r.entry(registration.Entry{SPIFFEID: spiffeID("/web"), ParentID: svid.ID})
	_, err := bundlev1.NewBundleClient(r.as(nil)).GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
	must(t, err)
	if n := len(r.lines("level=INFO", "Bundle/GetBundle", "caller=none", "address=127.0.0.1:", "code=OK")); n != 1 {
		t.Errorf("%d lines of a read", n)
	}
	csr := newCSR(t, newKey(t))
	_, err = svidv1.NewSVIDClient(r.as(svid)).BatchNewX509SVID(t.Context(), &svidv1.BatchNewX509SVIDRequest{
		Params: []*svidv1.NewX509SVIDParams{{EntryId: web, Csr: csr}, {EntryId: "made-up", Csr: csr}},
	})
	must(t, err)
	if n := len(r.lines("item of a call", "item=0", "name="+web, "code=OK", "spiffe_id=spiffe://lanyard.test/web", "serial=")); n != 1 {
		t.Errorf("%d lines of the SVID in\n%s", n, r.log.String())
	}
	if n := len(r.lines("item of a call", "item=1", "name=made-up", "code=NotFound", "error=")); n != 1 {
		t.Errorf("%d lines of the failure", n)
	}
}

// TestAuditOfChanges makes each change of agents and entries, and wants a line
// that says who, what and how it went; and no token in any.
func TestAuditOfChanges(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	admin, entries := agentv1.NewAgentClient(r.local()), entryv1.NewEntryClient(r.local())
	token, err := admin.CreateJoinToken(ctx, &agentv1.CreateJoinTokenRequest{Ttl: 600})
	must(t, err)
	unused := token.Value
	svid := r.join()
	conn := r.as(svid)
	_, err = agentv1.NewAgentClient(conn).PostStatus(ctx, &agentv1.PostStatusRequest{AgentVersion: "1.2.3"})
	must(t, err)
	renewed, err := agentv1.NewAgentClient(conn).RenewAgent(ctx, &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: newCSR(t, newKey(t))}})
	must(t, err)
	next, err := svidOf(renewed.Svid, newKey(t))
	must(t, err)
	created, err := entries.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{registration.Entry{
		SPIFFEID: spiffeID("/web"), ParentID: svid.ID, Selectors: []registration.Selector{{Type: "unix", Value: "uid:0"}},
	}.Proto()}})
	must(t, err)
	entry := created.Results[0].Entry.GetId()
	_, err = entries.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{entry, "made-up"}})
	must(t, err)
	_, err = admin.BanAgent(ctx, &agentv1.BanAgentRequest{Id: registration.IDProto(svid.ID)})
	must(t, err)
	_, err = admin.DeleteAgent(ctx, &agentv1.DeleteAgentRequest{Id: registration.IDProto(svid.ID)})
	must(t, err)
	_, err = admin.DeleteAgent(ctx, &agentv1.DeleteAgentRequest{Id: registration.IDProto(svid.ID)})
	if status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	key := newKey(t)
	if _, err := r.attestWith("join_token", unused+"x", newCSR(t, key), key); err == nil {
		t.Error("a token that was never made is good")
	}
	for _, parts := range [][]string{
		{"Agent/CreateJoinToken", "caller=local", "code=OK", "token_id="},
		{"Agent/AttestAgent", "caller=none", "code=OK", "spiffe_id=" + svid.ID.String(), "serial=" + svid.Certificates[0].SerialNumber.String()},
		{"Agent/AttestAgent", "caller=none", "code=InvalidArgument", "attestation=join_token"},
		{"Agent/PostStatus", "caller=" + svid.ID.String(), "version=1.2.3"},
		{"Agent/RenewAgent", "caller=" + svid.ID.String(), "code=OK", "serial=" + next.Certificates[0].SerialNumber.String()},
		{"Entry/BatchCreateEntry", "caller=local", "done=1 failed=0", entry},
		{"Entry/BatchDeleteEntry", "caller=local", "done=1 failed=1", entry, `refused="[made-up: `},
		{"Agent/BanAgent", "caller=local", "code=OK", "agent=" + svid.ID.String()},
		{"Agent/DeleteAgent", "caller=local", "code=OK", "agent=" + svid.ID.String()},
		{"Agent/DeleteAgent", "caller=local", "code=NotFound", "agent=" + svid.ID.String()},
	} {
		parts = append(parts, "level=INFO msg=call", "took=", "call=")
		if n := len(r.lines(parts...)); n == 0 {
			t.Errorf("no line with %q in\n%s", parts, r.log.String())
		}
	}
	if strings.Contains(r.log.String(), unused) {
		t.Error("the log has a token")
	}
}

// TestCallsAreCounted is the seam for metrics.
func TestCallsAreCounted(t *testing.T) {
	var mu sync.Mutex
	var calls []string
	r := newRigWith(t, func(d *Deps) {
		d.Calls = func(method, code string, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, fmt.Sprint(method, " ", code, " ", took >= 0))
		}
	})
	must(t, list(t, r.local()))
	if err := list(t, r.as(nil)); err == nil {
		t.Error("allowed")
	}
	mu.Lock()
	defer mu.Unlock()
	const method = "/spire.api.server.agent.v1.Agent/ListAgents"
	if got, want := fmt.Sprint(calls), fmt.Sprint([]string{method + " OK true", method + " PermissionDenied true"}); got != want {
		t.Errorf("calls = %s, want %s", got, want)
	}
}
