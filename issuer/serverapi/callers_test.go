package serverapi

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// sign has the issuer's CA sign an SVID, past all rules.
func (r *rig) sign(id spiffeid.ID) *x509svid.SVID {
	r.tb.Helper()
	key := newKey(r.tb)
	chain, err := r.deps.CA.SignX509SVID(r.tb.Context(), ca.Params{ID: id, PublicKey: key.Public()})
	must(r.tb, err)
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}
}

// join attests a new agent.
func (r *rig) join() *x509svid.SVID {
	r.tb.Helper()
	svid, err := r.attest(r.token(), newKey(r.tb))
	must(r.tb, err)
	return svid
}

func (r *rig) token() string {
	r.tb.Helper()
	token, err := agentv1.NewAgentClient(r.local()).CreateJoinToken(r.tb.Context(), &agentv1.CreateJoinTokenRequest{Ttl: 600})
	must(r.tb, err)
	return token.GetValue()
}

// attest joins with a token, over a connection of its own without a certificate.
func (r *rig) attest(token string, key crypto.Signer) (*x509svid.SVID, error) {
	return r.attestWith("join_token", token, newCSR(r.tb, key), key)
}

func (r *rig) attestWith(method, payload string, csr []byte, key crypto.Signer) (*x509svid.SVID, error) {
	stream, err := agentv1.NewAgentClient(r.as(nil)).AttestAgent(r.tb.Context())
	if err != nil {
		return nil, err
	}
	err = stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{
		Params: &agentv1.AttestAgentRequest_Params{
			Data:   &types.AttestationData{Type: method, Payload: []byte(payload)},
			Params: &agentv1.AgentX509SVIDParams{Csr: csr},
		},
	}})
	if err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	return svidOf(resp.GetResult().GetSvid(), key)
}

func svidOf(p *types.X509SVID, key crypto.Signer) (*x509svid.SVID, error) {
	var der []byte
	for _, cert := range p.GetCertChain() {
		der = append(der, cert...)
	}
	chain, err := x509.ParseCertificates(der)
	if err != nil {
		return nil, err
	}
	id, err := registration.IDFromProto(p.GetId())
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}, err
}

// entry stores an entry and returns its ID.
func (r *rig) entry(e registration.Entry) string {
	r.tb.Helper()
	if e.Selectors == nil {
		e.Selectors = []registration.Selector{{Type: "unix", Value: "uid:0"}}
	}
	results, rev, err := r.deps.Store.CreateEntries(r.tb.Context(), []registration.Entry{e})
	must(r.tb, err)
	must(r.tb, results[0].Err)
	must(r.tb, r.deps.Registry.Wait(r.tb.Context(), rev))
	return results[0].Entry.ID
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func newCSR(t testing.TB, key crypto.Signer) []byte {
	return csrOf(t, &x509.CertificateRequest{}, key)
}

func csrOf(t testing.TB, template *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	must(t, err)
	return der
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantStatus checks a status's code and text.
func wantStatus(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || status.Convert(err).Message() != text {
		t.Errorf("err = %v, want %s %q", err, code, text)
	}
}

// reason returns the reason in a PermissionDenied, as agents look for it.
func reason(err error) types.PermissionDeniedDetails_Reason {
	for _, detail := range status.Convert(err).Details() {
		if d, ok := detail.(*types.PermissionDeniedDetails); ok {
			return d.GetReason()
		}
	}
	return types.PermissionDeniedDetails_UNKNOWN
}
