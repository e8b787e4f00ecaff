package serverapi

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// TestImportAgents takes over an agent whose SVID another issuer signed: it goes
// on with that.
func TestImportAgents(t *testing.T) {
	r := newRig(t)
	ctx, c := t.Context(), operationsv1.NewOperationsClient(r.local())
	old := testca.New(t, "lanyard.test")
	id := spiffeID("/spire/agent/join_token/old")
	svid := old.SVID(t, id.String())
	agent := &types.Agent{
		Id: registration.IDProto(id), AttestationType: "join_token", X509SvidSerialNumber: svid.Certificates[0].SerialNumber.String(),
		X509SvidExpiresAt: svid.Certificates[0].NotAfter.Unix(), Selectors: []*types.Selector{{Type: "rack", Value: "7"}}, AgentVersion: "1.12.0",
	}
	banned := &types.Agent{Id: registration.IDProto(spiffeID("/spire/agent/x509pop/bad")), AttestationType: "x509pop", Banned: true, CanReattest: true}
	authority := []*types.X509Certificate{{Asn1: old.Cert.Raw}}
	_, err := c.ImportAgents(ctx, &operationsv1.ImportAgentsRequest{Agents: []*types.Agent{agent}, X509Authorities: authority})
	wantStatus(t, err, codes.FailedPrecondition, "cannot import agents: x509_authorities[0] is not in the bundle: append the other issuer's bundle first")

	rev, err := r.deps.Store.UpdateCA(ctx, func(s *store.CAState) error {
		s.Bundle.X509Authorities = append(s.Bundle.X509Authorities, authority...)
		return nil
	})
	must(t, err)
	must(t, r.deps.Registry.Wait(ctx, rev))
	with := func(change func(*types.Agent)) *types.Agent {
		a := &types.Agent{
			Id: registration.IDProto(spiffeID("/spire/agent/x/y")), AttestationType: "x", X509SvidSerialNumber: "1", X509SvidExpiresAt: 1,
		}
		change(a)
		return a
	}
	resp, err := c.ImportAgents(ctx, &operationsv1.ImportAgentsRequest{X509Authorities: authority, Agents: []*types.Agent{
		agent, banned, agent,
		{},
		with(func(a *types.Agent) { a.Id.TrustDomain = "other.test" }),
		with(func(a *types.Agent) { a.Id.Path = "/web" }),
		with(func(a *types.Agent) { a.AttestationType = "" }),
		with(func(a *types.Agent) { a.X509SvidSerialNumber = "" }),
		with(func(a *types.Agent) { a.X509SvidSerialNumber = "0x17" }),
		with(func(a *types.Agent) { a.X509SvidSerialNumber = strings.Repeat("9", 50) }),
		with(func(a *types.Agent) { a.X509SvidExpiresAt = 0 }),
		with(func(a *types.Agent) { a.Banned = true }),
		with(func(a *types.Agent) { a.AgentVersion = strings.Repeat("v", 256) }),
		with(func(a *types.Agent) { a.Selectors = []*types.Selector{{Type: "a:b", Value: "c"}} }),
	}})
	must(t, err)
	for i, result := range resp.Results {
		want := codes.InvalidArgument
		switch i {
		case 0, 1:
			want = codes.OK
		case 2:
			want = codes.AlreadyExists
		}
		if codes.Code(result.Status.GetCode()) != want {
			t.Errorf("%d: %v, want %s", i, result.Status, want)
		}
	}
	got, err := agentv1.NewAgentClient(r.local()).GetAgent(ctx, &agentv1.GetAgentRequest{Id: agent.Id})
	if err != nil || got.String() != agent.String() {
		t.Errorf("agent = %v, %v, want %v", got, err, agent)
	}
	got, err = agentv1.NewAgentClient(r.local()).GetAgent(ctx, &agentv1.GetAgentRequest{Id: banned.Id})
	if err != nil || got.String() != banned.String() {
		t.Errorf("agent = %v, %v, want %v", got, err, banned)
	}
	_, err = agentv1.NewAgentClient(r.as(svid)).PostStatus(ctx, &agentv1.PostStatusRequest{AgentVersion: "1.12.0"})
	must(t, err)
	imposter := old.SVID(t, id.String())
	_, err = agentv1.NewAgentClient(r.as(imposter)).PostStatus(ctx, &agentv1.PostStatusRequest{})
	if status.Code(err) != codes.PermissionDenied || reason(err) != types.PermissionDeniedDetails_AGENT_NOT_ACTIVE {
		t.Errorf("another SVID: %v", err)
	}
}
