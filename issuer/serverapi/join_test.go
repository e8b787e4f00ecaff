package serverapi

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// TestJoinTokenRace has fifty agents show one token at once.
func TestJoinTokenRace(t *testing.T) {
	r := newRig(t)
	token := r.token()
	var joined atomic.Int32
	var racing sync.WaitGroup
	start := make(chan struct{})
	for range 50 {
		key := newKey(t)
		racing.Go(func() {
			<-start
			_, err := r.attest(token, key)
			switch {
			case err == nil:
				joined.Add(1)
			case status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != nodeattest.TokenSpent:
				t.Errorf("err = %v", err)
			}
		})
	}
	close(start)
	racing.Wait()
	if n := joined.Load(); n != 1 {
		t.Errorf("%d agents joined with one token, want 1", n)
	}
}

func TestSameKeyJoinsAgain(t *testing.T) {
	r := newRig(t)
	token, key := r.token(), newKey(t)
	first, err := r.attest(token, key)
	must(t, err)
	second, err := r.attest(token, key)
	must(t, err)
	if first.ID != second.ID || first.Certificates[0].SerialNumber.Cmp(second.Certificates[0].SerialNumber) == 0 {
		t.Errorf("second SVID: %s, serial %s", second.ID, second.Certificates[0].SerialNumber)
	}
	// Only the last answer counts, wherever the first one went.
	_, err = agentv1.NewAgentClient(r.as(first)).PostStatus(t.Context(), &agentv1.PostStatusRequest{})
	if got := reason(err); got != types.PermissionDeniedDetails_AGENT_NOT_ACTIVE {
		t.Errorf("with the first SVID: %v", err)
	}
	_, err = agentv1.NewAgentClient(r.as(second)).PostStatus(t.Context(), &agentv1.PostStatusRequest{})
	must(t, err)
}

func TestMalformedCSRKeepsToken(t *testing.T) {
	r := newRig(t)
	token, key := r.token(), newKey(t)
	good := newCSR(t, key)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	for name, csr := range map[string][]byte{"garbage": []byte("garbage"), "cut": good[:20], "forged signature": forged, "huge": make([]byte, 1<<20)} {
		if _, err := r.attestWith("join_token", token, csr, key); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: err = %v", name, err)
		}
	}
	_, err := r.attest(token, key)
	must(t, err)
}

func TestAttestRefuses(t *testing.T) {
	r := newRig(t)
	admin := agentv1.NewAgentClient(r.local())
	key := newKey(t)
	csr := newCSR(t, key)
	attest := func(method, payload string, csr []byte) error {
		_, err := r.attestWith(method, payload, csr, key)
		return err
	}
	wantStatus(t, attest("join_token", "never-made", csr), codes.InvalidArgument, nodeattest.TokenSpent)
	wantStatus(t, attest("join_token", "../../spire/server", csr), codes.InvalidArgument, nodeattest.TokenSpent)
	wantStatus(t, attest("join_token", strings.Repeat("a", 1<<17), csr), codes.InvalidArgument, nodeattest.TokenSpent)
	wantStatus(t, attest("join_token", strings.Repeat("a", 1<<20), csr), codes.InvalidArgument, "malformed param: attestation data is larger than 262144 bytes")
	wantStatus(t, attest("x509pop", "{}", csr), codes.FailedPrecondition,
		`error getting node attestor: could not find node attestor type "x509pop"`)
	wantStatus(t, attest(strings.Repeat("x", 65), "x", csr), codes.InvalidArgument, "malformed param: attestation data type is too long")
	wantStatus(t, attest("", "x", csr), codes.InvalidArgument, "malformed param: missing attestation data type")
	wantStatus(t, attest("join_token", "", csr), codes.InvalidArgument, "malformed param: missing attestation data payload")
	wantStatus(t, attest("join_token", "x", nil), codes.InvalidArgument, "malformed param: missing CSR")

	token, err := admin.CreateJoinToken(t.Context(), &agentv1.CreateJoinTokenRequest{Ttl: 60})
	must(t, err)
	r.ahead.Store(int64(2 * time.Minute))
	wantStatus(t, attest("join_token", token.Value, csr), codes.InvalidArgument, nodeattest.TokenExpired)
	wantStatus(t, attest("join_token", token.Value, csr), codes.InvalidArgument, nodeattest.TokenSpent)

	// A banned agent does not come back, not even with its own token and key.
	again := r.token()
	svid, err := r.attest(again, key)
	must(t, err)
	_, err = admin.BanAgent(t.Context(), &agentv1.BanAgentRequest{Id: registration.IDProto(svid.ID)})
	must(t, err)
	wantStatus(t, attest("join_token", again, csr), codes.PermissionDenied, nodeattest.AgentBanned)
}

func TestEvictedAgentNeedsNewToken(t *testing.T) {
	r := newRig(t)
	token, key := r.token(), newKey(t)
	svid, err := r.attest(token, key)
	must(t, err)
	_, err = agentv1.NewAgentClient(r.local()).DeleteAgent(t.Context(), &agentv1.DeleteAgentRequest{Id: registration.IDProto(svid.ID)})
	must(t, err)
	_, err = r.attest(token, key)
	wantStatus(t, err, codes.InvalidArgument, nodeattest.TokenSpent)
	_, err = r.attest(r.token(), key)
	must(t, err)
}

func TestCreateJoinToken(t *testing.T) {
	r := newRig(t)
	admin := agentv1.NewAgentClient(r.local())
	create := func(req *agentv1.CreateJoinTokenRequest) (*types.JoinToken, error) {
		return admin.CreateJoinToken(t.Context(), req)
	}
	_, err := create(&agentv1.CreateJoinTokenRequest{})
	wantStatus(t, err, codes.InvalidArgument, "ttl is required, you must provide one")
	_, err = create(&agentv1.CreateJoinTokenRequest{Ttl: 60, Token: "no/slash"})
	if status.Code(err) != codes.InvalidArgument || strings.Contains(err.Error(), "no/slash") {
		t.Errorf("err = %v", err)
	}
	_, err = create(&agentv1.CreateJoinTokenRequest{Ttl: 60, AgentId: &types.SPIFFEID{TrustDomain: "lanyard.test", Path: "/spire/agent/x"}})
	wantStatus(t, err, codes.InvalidArgument, `invalid agent ID: "spiffe://lanyard.test/spire/agent/x" is not a workload in trust domain "lanyard.test"; path is in the reserved namespace`)

	alias := registration.IDProto(spiffeID("/node/one"))
	token, err := create(&agentv1.CreateJoinTokenRequest{Ttl: 60, Token: "chosen-0123456789", AgentId: alias})
	must(t, err)
	if left := time.Unix(token.ExpiresAt, 0).Sub(r.now()); token.Value != "chosen-0123456789" || left < 58*time.Second || left > time.Minute {
		t.Errorf("token = %v, %s left", token, left)
	}
	_, err = create(&agentv1.CreateJoinTokenRequest{Ttl: 60, Token: "chosen-0123456789"})
	if status.Code(err) != codes.AlreadyExists {
		t.Errorf("err = %v", err)
	}
	if log := r.log.String(); strings.Contains(log, "chosen-0123456789") {
		t.Errorf("the token is in the log:\n%s", log)
	}
	svid, err := r.attest(token.Value, newKey(t))
	must(t, err)
	entries := r.deps.Registry.EntriesBySPIFFEID(spiffeID("/node/one"))
	if len(entries) != 1 || entries[0].ParentID != svid.ID {
		t.Errorf("alias entries = %v, want one below %s", entries, svid.ID)
	}
}

// TestRenewedSerialIsPromotedOnFirstUse follows an agent through a renewal.
func TestRenewedSerialIsPromotedOnFirstUse(t *testing.T) {
	r := newRig(t)
	current := r.join()
	post := func(conn agentv1.AgentClient) error {
		_, err := conn.PostStatus(t.Context(), &agentv1.PostStatusRequest{})
		return err
	}
	before := agentv1.NewAgentClient(r.as(current))
	key := newKey(t)
	resp, err := before.RenewAgent(t.Context(), &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: newCSR(t, key)}})
	must(t, err)
	renewed, err := svidOf(resp.Svid, key)
	must(t, err)
	if renewed.ID != current.ID || !key.PublicKey.Equal(renewed.Certificates[0].PublicKey) {
		t.Fatalf("renewed SVID is %s", renewed.ID)
	}

	// The answer may be lost: the SVID in use stays good, and may renew again.
	must(t, post(before))
	_, err = before.RenewAgent(t.Context(), &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: newCSR(t, newKey(t))}})
	must(t, err)
	if got := reason(post(agentv1.NewAgentClient(r.as(renewed)))); got != types.PermissionDeniedDetails_AGENT_NOT_ACTIVE {
		t.Errorf("the first renewal, superseded by the second: %v", got)
	}
	resp, err = before.RenewAgent(t.Context(), &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: newCSR(t, key)}})
	must(t, err)
	renewed, err = svidOf(resp.Svid, key)
	must(t, err)

	// First use, by many calls at once.
	after := agentv1.NewAgentClient(r.as(renewed))
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			if err := post(after); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if got := reason(post(before)); got != types.PermissionDeniedDetails_AGENT_NOT_ACTIVE {
		t.Errorf("with the former SVID: %v", got)
	}
	agent, ok := r.deps.Registry.Agent(current.ID)
	if !ok || agent.Serial != renewed.Certificates[0].SerialNumber.String() || agent.NewSerial != "" ||
		agent.NotAfter != renewed.Certificates[0].NotAfter.Unix() {
		t.Errorf("record = %v", agent)
	}
}

func TestRenewAgentRefuses(t *testing.T) {
	r := newRig(t)
	agent := agentv1.NewAgentClient(r.as(r.join()))
	_, err := agent.RenewAgent(t.Context(), &agentv1.RenewAgentRequest{})
	wantStatus(t, err, codes.InvalidArgument, "params cannot be nil")
	_, err = agent.RenewAgent(t.Context(), &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{}})
	wantStatus(t, err, codes.InvalidArgument, "missing CSR")
	forged := newCSR(t, newKey(t))
	forged[len(forged)-1] ^= 1
	_, err = agent.RenewAgent(t.Context(), &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: forged}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("forged CSR: %v", err)
	}
}

func TestPostStatus(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	agent := agentv1.NewAgentClient(r.as(svid))
	_, err := agent.PostStatus(t.Context(), &agentv1.PostStatusRequest{AgentVersion: strings.Repeat("v", 256)})
	wantStatus(t, err, codes.InvalidArgument, "agent version is too long (max 255 characters)")
	_, err = agent.PostStatus(t.Context(), &agentv1.PostStatusRequest{AgentVersion: "1.2.3\nBanned: false\x1b[2J"})
	wantStatus(t, err, codes.InvalidArgument, "agent version has characters that cannot be printed")
	_, err = agent.PostStatus(t.Context(), &agentv1.PostStatusRequest{AgentVersion: "1.2.3"})
	must(t, err)
	if rec, _ := r.deps.Registry.Agent(svid.ID); rec.GetAgentVersion() != "1.2.3" {
		t.Errorf("record = %v", rec)
	}
}
