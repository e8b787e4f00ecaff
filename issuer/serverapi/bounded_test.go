package serverapi

import (
	"crypto/tls"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// A message that no method wants is in memory before it is refused: of strangers
// there must not be any number of them.
func TestGuardStrangersSendLittle(t *testing.T) {
	r := newRig(t)
	r.entry(registration.Entry{SPIFFEID: spiffeID("/web"), ParentID: spiffeID("/spire/server")})
	nested := registration.Entry{SPIFFEID: spiffeID("/nested"), ParentID: spiffeID("/spire/server"), Downstream: true}
	r.entry(nested)
	for name, test := range map[string]struct {
		svid *x509svid.SVID
		cut  bool
	}{
		"no certificate": {nil, true},
		"workload":       {r.sign(spiffeID("/web")), true},
		"agent":          {r.join(), false},
		"downstream":     {r.sign(nested.SPIFFEID), false},
		"admin":          {r.sign(adminID), false},
	} {
		conn := r.as(test.svid)
		cut := false
		for range 6 {
			err := largeAttempt(t, conn, 1<<20)
			if code := status.Code(err); code != codes.InvalidArgument {
				cut = cut || code == codes.Unavailable
			}
		}
		if cut != test.cut {
			t.Errorf("%s: cut off after %d bytes: %v, want %v", name, maxStrangerBytes, cut, test.cut)
		}
		// The next connection is good.
		if _, err := bundlev1.NewBundleClient(conn).GetBundle(t.Context(), &bundlev1.GetBundleRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConnectionsAreBoundedByWhoCalls(t *testing.T) {
	r := newRig(t)
	nested := registration.Entry{SPIFFEID: spiffeID("/nested"), ParentID: spiffeID("/spire/server"), Downstream: true}
	r.entry(nested)
	g := newGuard(r.deps)
	for name, test := range map[string]struct {
		svid *x509svid.SVID
		want int64
	}{
		"no certificate": {&x509svid.SVID{}, maxStrangerBytes},
		"workload":       {r.sign(spiffeID("/web")), maxStrangerBytes},
		"agent":          {r.join(), maxAgentBytes},
		"downstream":     {r.sign(nested.SPIFFEID), 0},
		"admin":          {r.sign(adminID), 0},
	} {
		info := credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: test.svid.Certificates}}
		if got := g.maxBytes(info); got != test.want {
			t.Errorf("%s: %d bytes, want %d", name, got, test.want)
		}
	}
}

// largeAttempt shows size bytes to join with.
func largeAttempt(t *testing.T, conn *grpc.ClientConn, size int) error {
	t.Helper()
	stream, err := agentv1.NewAgentClient(conn).AttestAgent(t.Context(), grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{
		Params: &agentv1.AttestAgentRequest_Params{
			Data:   &types.AttestationData{Type: "join_token", Payload: make([]byte, size)},
			Params: &agentv1.AgentX509SVIDParams{Csr: []byte("x")},
		},
	}})
	_, err = stream.Recv()
	return err
}

// A template may have been there before admin_ids named an ID that it makes.
func TestGuardNoAdministratorOfATemplate(t *testing.T) {
	r := newRig(t)
	conn := r.as(r.sign(adminID))
	count := func() error {
		_, err := agentv1.NewAgentClient(conn).CountAgents(t.Context(), &agentv1.CountAgentsRequest{})
		return err
	}
	must(t, count())
	template, err := registration.ParseTemplate(td, adminID.Path()+"/{{unix:user}}")
	must(t, err)
	// Written as by an issuer that had no admin_ids.
	r.entry(registration.Entry{Template: template, ParentID: r.join().ID})
	if err := count(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("an ID that a template reserves is an administrator's: %v", err)
	}
}
