package serverapi

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

func TestGetAgent(t *testing.T) {
	r := newRig(t)
	admin := agentv1.NewAgentClient(r.local())
	svid := r.join()
	got, err := admin.GetAgent(t.Context(), &agentv1.GetAgentRequest{Id: registration.IDProto(svid.ID)})
	must(t, err)
	want := &types.Agent{
		Id:                   registration.IDProto(svid.ID),
		AttestationType:      "join_token",
		X509SvidSerialNumber: svid.Certificates[0].SerialNumber.String(),
		X509SvidExpiresAt:    svid.Certificates[0].NotAfter.Unix(),
	}
	if !proto.Equal(want, got) {
		t.Errorf("got %v, want %v", got, want)
	}
	got, err = admin.GetAgent(t.Context(), &agentv1.GetAgentRequest{Id: registration.IDProto(svid.ID), OutputMask: &types.AgentMask{Banned: true}})
	must(t, err)
	if want := (&types.Agent{Id: want.Id}); !proto.Equal(want, got) {
		t.Errorf("masked: got %v, want %v", got, want)
	}
	for _, tt := range []struct {
		id   *types.SPIFFEID
		code codes.Code
	}{
		{nil, codes.InvalidArgument},
		{&types.SPIFFEID{TrustDomain: "lanyard.test", Path: "/web"}, codes.InvalidArgument},
		{&types.SPIFFEID{TrustDomain: "other.test", Path: "/spire/agent/join_token/x"}, codes.InvalidArgument},
		{&types.SPIFFEID{TrustDomain: "lanyard.test", Path: "/spire/agent/join_token/x"}, codes.NotFound},
	} {
		_, err := admin.GetAgent(t.Context(), &agentv1.GetAgentRequest{Id: tt.id})
		if status.Code(err) != tt.code {
			t.Errorf("GetAgent(%v) = %v, want %s", tt.id, err, tt.code)
		}
		_, err = admin.DeleteAgent(t.Context(), &agentv1.DeleteAgentRequest{Id: tt.id})
		if status.Code(err) != tt.code {
			t.Errorf("DeleteAgent(%v) = %v, want %s", tt.id, err, tt.code)
		}
		_, err = admin.BanAgent(t.Context(), &agentv1.BanAgentRequest{Id: tt.id})
		if status.Code(err) != tt.code {
			t.Errorf("BanAgent(%v) = %v, want %s", tt.id, err, tt.code)
		}
	}
}

// TestFilterAgents looks for agents a to d by all that a filter can say.
func TestFilterAgents(t *testing.T) {
	r := newRig(t)
	admin := agentv1.NewAgentClient(r.local())
	sel := func(values ...string) []*types.Selector {
		var s []*types.Selector
		for _, v := range values {
			s = append(s, &types.Selector{Type: "k", Value: v})
		}
		return s
	}
	for name, change := range map[string]func(*storepb.Agent){
		"a": func(a *storepb.Agent) { a.Selectors = sel("1") },
		"b": func(a *storepb.Agent) { a.Selectors = sel("1", "2"); a.CanReattest = true },
		"c": func(a *storepb.Agent) { a.Selectors = sel("3"); a.AttestationType = "x509pop" },
		"d": func(a *storepb.Agent) { a.Banned, a.Serial, a.NotAfter = true, "", 1000 },
	} {
		_, err := admin.CreateJoinToken(t.Context(), &agentv1.CreateJoinTokenRequest{Ttl: 60, Token: name})
		must(t, err)
		svid, err := r.attest(name, newKey(t))
		must(t, err)
		_, rev, err := r.deps.Store.UpdateAgent(t.Context(), svid.ID, func(a *storepb.Agent) error {
			change(a)
			return nil
		})
		must(t, err)
		must(t, r.deps.Registry.Wait(t.Context(), rev))
	}
	match := func(m types.SelectorMatch_MatchBehavior, values ...string) *agentv1.ListAgentsRequest_Filter {
		return &agentv1.ListAgentsRequest_Filter{BySelectorMatch: &types.SelectorMatch{Selectors: sel(values...), Match: m}}
	}
	for _, tt := range []struct {
		name   string
		filter *agentv1.ListAgentsRequest_Filter
		want   string
	}{
		{"none", nil, "abcd"},
		{"attestation type", &agentv1.ListAgentsRequest_Filter{ByAttestationType: "x509pop"}, "c"},
		{"banned", &agentv1.ListAgentsRequest_Filter{ByBanned: wrapperspb.Bool(true)}, "d"},
		{"not banned", &agentv1.ListAgentsRequest_Filter{ByBanned: wrapperspb.Bool(false)}, "abc"},
		{"can reattest", &agentv1.ListAgentsRequest_Filter{ByCanReattest: wrapperspb.Bool(true)}, "b"},
		{"expired", &agentv1.ListAgentsRequest_Filter{ByExpiresBefore: "1990-01-01 00:00:00 +0000 +00"}, "d"},
		{"exact", match(types.SelectorMatch_MATCH_EXACT, "2", "1", "1"), "b"},
		{"subset", match(types.SelectorMatch_MATCH_SUBSET, "1", "2"), "ab"},
		{"superset", match(types.SelectorMatch_MATCH_SUPERSET, "1"), "ab"},
		{"any", match(types.SelectorMatch_MATCH_ANY, "2", "3"), "bc"},
		{"all at once", &agentv1.ListAgentsRequest_Filter{ByAttestationType: "x509pop", ByBanned: wrapperspb.Bool(true)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := admin.ListAgents(t.Context(), &agentv1.ListAgentsRequest{Filter: tt.filter})
			must(t, err)
			if diff := cmp.Diff(tt.want, names(resp.Agents)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			count := &agentv1.CountAgentsRequest{}
			if f := tt.filter; f != nil {
				count.Filter = &agentv1.CountAgentsRequest_Filter{
					ByAttestationType: f.ByAttestationType, BySelectorMatch: f.BySelectorMatch, ByBanned: f.ByBanned,
					ByCanReattest: f.ByCanReattest, ByExpiresBefore: f.ByExpiresBefore,
				}
			}
			n, err := admin.CountAgents(t.Context(), count)
			must(t, err)
			if int(n.Count) != len(tt.want) {
				t.Errorf("count = %d, want %d", n.Count, len(tt.want))
			}
		})
	}
	for _, bad := range []*agentv1.ListAgentsRequest_Filter{
		{ByExpiresBefore: "yesterday"},
		{BySelectorMatch: &types.SelectorMatch{}},
		match(types.SelectorMatch_MATCH_ANY, make([]string, 2)...),
		match(types.SelectorMatch_MATCH_ANY, strings.Split(strings.Repeat("x,", 1001), ",")...),
	} {
		if _, err := admin.ListAgents(t.Context(), &agentv1.ListAgentsRequest{Filter: bad}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("filter %v: err = %v", bad, err)
		}
	}
	testPages(t, admin)
}

// names joins the last segments of the agents' IDs.
func names(agents []*types.Agent) string {
	var b strings.Builder
	for _, a := range agents {
		b.WriteString(strings.TrimPrefix(a.Id.Path, "/spire/agent/join_token/"))
	}
	return b.String()
}

// testPages lists agents a to d in pages.
func testPages(t *testing.T, admin agentv1.AgentClient) {
	t.Helper()
	for size, want := range map[int32][]string{
		0: {"abcd"}, 1: {"a", "b", "c", "d", ""}, 2: {"ab", "cd", ""}, 3: {"abc", "d", ""}, 4: {"abcd", ""}, 9: {"abcd", ""},
	} {
		var pages []string
		req := &agentv1.ListAgentsRequest{PageSize: size}
		for {
			resp, err := admin.ListAgents(t.Context(), req)
			must(t, err)
			pages = append(pages, names(resp.Agents))
			if req.PageToken = resp.NextPageToken; req.PageToken == "" {
				break
			}
		}
		if diff := cmp.Diff(want, pages); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
	}
	for _, token := range []string{"12", "%", "c3BpZmZl", "c3BpZmZlOi8vbGFueWFyZC50ZXN0Ly8"} {
		_, err := admin.ListAgents(t.Context(), &agentv1.ListAgentsRequest{PageSize: 2, PageToken: token})
		wantStatus(t, err, codes.InvalidArgument, "malformed page token")
	}
}

// FuzzPageToken holds that a token is refused or names the place to go on from,
// and that this comes back from the token that is made of it.
func FuzzPageToken(f *testing.F) {
	f.Add("")
	f.Add(pageToken("spiffe://lanyard.test/spire/agent/join_token/a"))
	f.Add("12")
	f.Add("\xff\x00")
	f.Fuzz(func(t *testing.T, token string) {
		after, err := parsePageToken(token)
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Fatal(err)
			}
			return
		}
		if again, err := parsePageToken(pageToken(after)); err != nil || after != again {
			t.Fatalf("%q gives %q, and that %q, %v", token, after, again, err)
		}
	})
}
