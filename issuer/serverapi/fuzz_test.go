package serverapi

import (
	"crypto/ed25519"
	"crypto/x509"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

func addProto(f *testing.F, messages ...proto.Message) {
	f.Helper()
	for _, m := range messages {
		data, err := proto.Marshal(m)
		must(f, err)
		f.Add(data)
	}
}

// FuzzImportAgent: an agent that is taken over is told of as it was sent.
func FuzzImportAgent(f *testing.F) {
	addProto(f,
		&types.Agent{
			Id: registration.IDProto(spiffeID("/spire/agent/join_token/x")), AttestationType: "join_token", X509SvidSerialNumber: "17",
			X509SvidExpiresAt: 1, Selectors: []*types.Selector{{Type: "a", Value: "b"}, {Type: "a", Value: "b"}}, AgentVersion: "1",
		},
		&types.Agent{Id: registration.IDProto(spiffeID("/spire/agent/x509pop/x")), AttestationType: "x509pop", Banned: true, CanReattest: true},
		&types.Agent{Id: &types.SPIFFEID{TrustDomain: "other.test", Path: "/../x"}},
	)
	s := NewOperationsService(Deps{TrustDomain: td})
	f.Fuzz(func(t *testing.T, data []byte) {
		var sent types.Agent
		if proto.Unmarshal(data, &sent) != nil {
			return
		}
		record, err := s.importable(&sent)
		if err != nil {
			return
		}
		told, err := agentProto(record, nil)
		must(t, err)
		if told.Banned != sent.Banned || told.X509SvidSerialNumber != sent.X509SvidSerialNumber || told.X509SvidExpiresAt != sent.X509SvidExpiresAt ||
			told.AttestationType != sent.AttestationType || told.CanReattest != sent.CanReattest || told.AgentVersion != sent.AgentVersion {
			t.Errorf("sent %v, told %v", &sent, told)
		}
		if id := told.Id; id.TrustDomain != td.Name() || !strings.HasPrefix(id.Path, "/spire/agent/") {
			t.Errorf("agent ID %v", id)
		}
	})
}

// FuzzTokenRequest: what is asked of tokens is within bounds, or refused.
func FuzzTokenRequest(f *testing.F) {
	addProto(f,
		&operationsv1.CreateTokenRequest{
			Method: "join_key", Ttl: 60, MaxUses: 2, AllowedCidrs: []string{"10.0.0.1/8", "::/0"}, Group: "g",
			Selectors: []*types.Selector{{Type: "a", Value: "b"}}, AgentId: registration.IDProto(spiffeID("/n")),
		},
		&operationsv1.CreateTokenRequest{Method: "join_token", Ttl: 1<<63 - 1},
		&operationsv1.CreateTokenRequest{Method: "join_key", Ttl: -1, MaxUses: -1, AllowedCidrs: []string{"fe80::1%eth0/64"}},
	)
	s := NewOperationsService(Deps{TrustDomain: td})
	f.Fuzz(func(t *testing.T, data []byte) {
		var req operationsv1.CreateTokenRequest
		if proto.Unmarshal(data, &req) != nil {
			return
		}
		want, err := s.tokenRequest(&req)
		if err != nil {
			return
		}
		if want.TTL <= 0 || want.MaxUses < 0 || len(want.CIDRs) != len(req.AllowedCidrs) || len(want.Selectors) > len(req.Selectors) {
			t.Errorf("%v became %+v", &req, want)
		}
		for _, cidr := range want.CIDRs {
			if !cidr.IsValid() || cidr != cidr.Masked() {
				t.Errorf("CIDR %s", cidr)
			}
		}
	})
}

// FuzzAgentFilter: a filter is refused or decides, whatever is in it.
func FuzzAgentFilter(f *testing.F) {
	addProto(f,
		&agentv1.ListAgentsRequest{Filter: &agentv1.ListAgentsRequest_Filter{
			ByAttestationType: "join_token", ByExpiresBefore: "2026-01-02 15:04:05 -0700 -07",
			BySelectorMatch: &types.SelectorMatch{Match: types.SelectorMatch_MATCH_ANY, Selectors: []*types.Selector{{Type: "a", Value: "b"}}},
		}},
		&agentv1.ListAgentsRequest{Filter: &agentv1.ListAgentsRequest_Filter{ByExpiresBefore: "tomorrow"}},
		&agentv1.ListAgentsRequest{Filter: &agentv1.ListAgentsRequest_Filter{BySelectorMatch: &types.SelectorMatch{Match: 77}}},
	)
	agent := &storepb.Agent{SpiffeId: "spiffe://lanyard.test/spire/agent/a/b", Serial: "1", NotAfter: 1, Selectors: []*types.Selector{{Type: "a", Value: "b"}}}
	f.Fuzz(func(t *testing.T, data []byte) {
		var req agentv1.ListAgentsRequest
		if proto.Unmarshal(data, &req) != nil {
			return
		}
		filter := req.GetFilter()
		match, err := agentFilter(filter.GetByAttestationType(), filter.GetBySelectorMatch(), filter.GetByBanned(), filter.GetByCanReattest(), filter.GetByExpiresBefore())
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Error(err)
			}
			return
		}
		if proto.Equal(filter, &agentv1.ListAgentsRequest_Filter{}) && !match(agent) {
			t.Error("the empty filter holds something back")
		}
		match(agent)
	})
}

// FuzzMintID: an administrator is signed for workloads of the own trust domain.
func FuzzMintID(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // the same seeds each time
	for _, uri := range []string{"spiffe://lanyard.test/web", "spiffe://lanyard.test/spire/server", "spiffe://other.test/x", "https://lanyard.test/x"} {
		u, err := url.Parse(uri)
		must(f, err)
		f.Add(csrOf(f, &x509.CertificateRequest{URIs: []*url.URL{u}, DNSNames: []string{"a.test", "*.test"}}, key))
	}
	f.Add(newCSR(f, key))
	s := NewSVIDService(Deps{TrustDomain: td})
	f.Fuzz(func(t *testing.T, data []byte) {
		csr, err := x509.ParseCertificateRequest(data) // its signature would stop the fuzzer
		if err != nil {
			return
		}
		_ = wildcardOverlap(csr.DNSNames)
		id, err := s.mintID(csr)
		if err == nil && registration.WorkloadID(td, id) != nil {
			t.Errorf("mints %s", id)
		}
	})
}

// FuzzAttestParams: what passes has everything that enroll is given, in bounds.
func FuzzAttestParams(f *testing.F) {
	params := func(p *agentv1.AttestAgentRequest_Params) *agentv1.AttestAgentRequest {
		return &agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: p}}
	}
	addProto(f,
		params(&agentv1.AttestAgentRequest_Params{
			Data: &types.AttestationData{Type: "join_token", Payload: []byte("x")}, Params: &agentv1.AgentX509SVIDParams{Csr: []byte("y")},
		}),
		params(&agentv1.AttestAgentRequest_Params{Data: &types.AttestationData{}}),
		echo([]byte("x")),
	)
	f.Fuzz(func(t *testing.T, data []byte) {
		var req agentv1.AttestAgentRequest
		if proto.Unmarshal(data, &req) != nil || checkAttestParams(req.GetParams()) != nil {
			return
		}
		p := req.GetParams()
		if p.Data.Type == "" || len(p.Data.Type) > maxAttestationType || len(p.Data.Payload) == 0 || len(p.Data.Payload) > attestBytes || len(p.Params.Csr) == 0 {
			t.Errorf("passed: %v", &req)
		}
		if key := enroll.RateKey(p.Data.Type, p.Data.Payload); key == "" || len(key) > 256 {
			t.Errorf("counted by %q", key)
		}
	})
}
