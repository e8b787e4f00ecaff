package conformance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// agent is one that joined, with a connection of its own.
type agent struct {
	id      *types.SPIFFEID
	svid    *x509svid.SVID
	conn    *grpc.ClientConn
	agents  agentv1.AgentClient
	entries entryv1.EntryClient
	svids   svidv1.SVIDClient
}

// as is the agent with an SVID.
func (c *C) as(svid *x509svid.SVID) *agent {
	c.Helper()
	conn := c.dial(svid)
	return &agent{
		id: &types.SPIFFEID{TrustDomain: svid.ID.TrustDomain().Name(), Path: svid.ID.Path()}, svid: svid, conn: conn,
		agents: agentv1.NewAgentClient(conn), entries: entryv1.NewEntryClient(conn), svids: svidv1.NewSVIDClient(conn),
	}
}

// post is a call that only an active agent may make, and that changes nothing.
func (a *agent) post(c *C) error {
	_, err := a.agents.PostStatus(c.ctx, &agentv1.PostStatusRequest{AgentVersion: "1.0"})
	return err
}

// join attests a new agent with a join token.
func (c *C) join() *agent {
	c.Helper()
	svid, err := c.attest("join_token", []byte(c.token()), newKey(c))
	c.must(err)
	return c.as(svid)
}

func (c *C) token() string {
	c.Helper()
	token, err := c.agents.CreateJoinToken(c.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 600})
	c.must(err)
	return token.GetValue()
}

// attest joins over a connection without a certificate.
func (c *C) attest(method string, payload []byte, key crypto.Signer) (*x509svid.SVID, error) {
	c.Helper()
	result, err := c.attestWith(method, payload, csrOf(c, &x509.CertificateRequest{}, key), nil)
	if err != nil {
		return nil, err
	}
	return svidOf(c, result.Svid, key), nil
}

// attestWith is attest with any CSR, and answers the challenges.
func (c *C) attestWith(method string, payload, csr []byte, answer func([]byte) []byte) (*agentv1.AttestAgentResponse_Result, error) {
	c.Helper()
	return c.converse(attestation(method, payload, csr), answer)
}

func attestation(method string, payload, csr []byte) *agentv1.AttestAgentRequest {
	return &agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data: &types.AttestationData{Type: method, Payload: payload}, Params: &agentv1.AgentX509SVIDParams{Csr: csr},
	}}}
}

// converse sends the first message of AttestAgent, and answers the challenges.
func (c *C) converse(first *agentv1.AttestAgentRequest, answer func([]byte) []byte) (*agentv1.AttestAgentResponse_Result, error) {
	c.Helper()
	return c.converseOver(c.dial(nil), first, answer)
}

// converseOver may be called from any goroutine, with no challenge to answer.
func (c *C) converseOver(conn *grpc.ClientConn, first *agentv1.AttestAgentRequest, answer func([]byte) []byte) (*agentv1.AttestAgentResponse_Result, error) {
	c.Helper()
	stream, err := agentv1.NewAgentClient(conn).AttestAgent(c.ctx)
	if err != nil {
		return nil, err
	}
	next := first
	for {
		if err := stream.Send(next); err != nil {
			_, err = stream.Recv()
			return nil, err
		}
		resp, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if resp.GetResult() != nil {
			return resp.GetResult(), stream.CloseSend()
		}
		next = &agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_ChallengeResponse{ChallengeResponse: answer(resp.GetChallenge())}}
	}
}

// renew asks for the agent's next SVID.
func (a *agent) renew(c *C) (*x509svid.SVID, error) {
	key := newKey(c)
	resp, err := a.agents.RenewAgent(c.ctx, &agentv1.RenewAgentRequest{
		Params: &agentv1.AgentX509SVIDParams{Csr: csrOf(c, &x509.CertificateRequest{}, key)},
	})
	if err != nil {
		return nil, err
	}
	return svidOf(c, resp.Svid, key), nil
}

// node is a machine with a certificate of the factory, which x509pop takes.
type node struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (c *C) newNode() node {
	cert, key := c.pop.Leaf(c.T)
	return node{cert, key}
}

// prove attests by x509pop: it signs the hash of both sides' nonces.
func (n node) prove(c *C) (*x509svid.SVID, error) {
	c.Helper()
	payload, err := json.Marshal(map[string]any{"certificates": [][]byte{n.cert.Raw}})
	c.must(err)
	key := newKey(c)
	result, err := c.attestWith("x509pop", payload, csrOf(c, &x509.CertificateRequest{}, key), func(challenge []byte) []byte {
		return n.answer(c, challenge)
	})
	if err != nil {
		return nil, err
	}
	if !result.Reattestable {
		c.Error("an agent of x509pop is not reattestable")
	}
	return svidOf(c, result.Svid, key), nil
}

func (n node) answer(c *C, challenge []byte) []byte {
	c.Helper()
	var asked struct {
		ECDSA struct {
			Nonce []byte `json:"nonce"`
		} `json:"ecdsa_signature"`
	}
	c.must(json.Unmarshal(challenge, &asked))
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	digest := sha256.Sum256(append(asked.ECDSA.Nonce, nonce...))
	r, s, err := ecdsa.Sign(rand.Reader, n.key, digest[:])
	c.must(err)
	response, err := json.Marshal(map[string]any{"ecdsa_signature": map[string][]byte{"nonce": nonce, "r": r.Bytes(), "s": s.Bytes()}})
	c.must(err)
	return response
}

// svidOf is an answered SVID with its key.
func svidOf(c *C, p *types.X509SVID, key crypto.Signer) *x509svid.SVID {
	c.Helper()
	var der []byte
	for _, cert := range p.GetCertChain() {
		der = append(der, cert...)
	}
	chain, err := x509.ParseCertificates(der)
	c.must(err)
	td, err := spiffeid.TrustDomainFromString(p.GetId().GetTrustDomain())
	c.must(err)
	id, err := spiffeid.FromPath(td, p.GetId().GetPath())
	c.must(err)
	if len(chain) == 0 {
		c.Fatalf("no certificate for %s", id)
	}
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}
}
