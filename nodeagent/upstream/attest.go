package upstream

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

type attestStream = grpc.BidiStreamingClient[agentv1.AttestAgentRequest, agentv1.AttestAgentResponse]

// attest proves what this node is and returns an SVID for key
// (spire.api.server.agent.v1, AttestAgent). l shows no client certificate.
func (c *Client) attest(ctx context.Context, l *link, key crypto.Signer) (*agentv1.AttestAgentResponse_Result, error) {
	csr, err := agentCSR(key)
	if err != nil {
		return nil, fatalError{err}
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fatalError{err}
	}
	svid, _ := c.id.current()
	proof, err := c.cfg.Attestor.Begin(ctx, Attempt{TrustDomain: c.cfg.TrustDomain, CSRKeyHash: sha256.Sum256(spki), Joined: svid != nil})
	if err != nil {
		return nil, &attestorError{err}
	}
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	stream, err := agentv1.NewAgentClient(l.conn).AttestAgent(ctx)
	if err != nil {
		return nil, err
	}
	method, _ := c.cfg.Attestor.Kind()
	if err := stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data:   &types.AttestationData{Type: method, Payload: proof.Payload},
		Params: &agentv1.AgentX509SVIDParams{Csr: csr},
	}}}); err != nil {
		// The reason comes with Recv.
		c.log.Debug("sending the attestation", "err", err)
	}
	result, err := c.converse(ctx, stream, proof)
	if err != nil {
		return nil, c.judgeAttest(l.addr, err, proof, svid != nil)
	}
	return result, stream.CloseSend()
}

// maxChallenges is how often the issuer may ask before it answers.
const maxChallenges = 10

// converse answers challenges until the issuer has made up its mind.
func (c *Client) converse(ctx context.Context, stream attestStream, proof Proof) (*agentv1.AttestAgentResponse_Result, error) {
	for range maxChallenges + 1 {
		resp, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if result := resp.GetResult(); result != nil {
			return result, nil
		}
		if proof.Respond == nil {
			method, _ := c.cfg.Attestor.Kind()
			return nil, fatal("the issuer asks more of this agent than %s has", method)
		}
		response, err := proof.Respond(ctx, resp.GetChallenge(), exporterOf(stream))
		if err != nil {
			return nil, &attestorError{err}
		}
		// As with the first message, the reason comes with Recv.
		if err := stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_ChallengeResponse{ChallengeResponse: response}}); err != nil {
			c.log.Debug("sending the response to a challenge", "err", err)
		}
	}
	return nil, errors.New("the issuer challenges this agent without end")
}

// exporterOf returns the exporter of the connection that stream is on; a message
// has come on it.
func exporterOf(stream attestStream) Exporter {
	if p, ok := peer.FromContext(stream.Context()); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			return info.State.ExportKeyingMaterial
		}
	}
	return func(string, []byte, int) ([]byte, error) { return nil, errors.New("the connection has no TLS") }
}

// attestorError says that this end has nothing to show: a file is missing, say.
type attestorError struct{ error }

func (e *attestorError) Unwrap() error { return e.error }

// tokenError says that only a person with a token can help.
type tokenError struct{ error }

func (e tokenError) Unwrap() error { return e.error }

func badToken(format string, args ...any) error { return tokenError{fatal(format, args...)} }

// judgeAttest tells what the issuer's refusal means.
func (c *Client) judgeAttest(addr string, err error, proof Proof, joined bool) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	method, _ := c.cfg.Attestor.Kind()
	switch {
	case st.Code() == codes.InvalidArgument && st.Message() == nodeattest.TokenSpent:
		mend := tokenMend(method)
		if method == nodeattest.JoinToken {
			mend += "; a token of join_key (token create) wants -nodeAttestor join_key"
		}
		return badToken("join token %s is unknown to issuer %s or was used already: %s", proof.Token, addr, mend)
	case st.Code() == codes.InvalidArgument && st.Message() == nodeattest.TokenExpired:
		return badToken("join token %s has expired: %s", proof.Token, tokenMend(method))
	case st.Code() == codes.PermissionDenied && st.Message() == nodeattest.KeyUnknown && joined:
		svid, _ := c.id.current()
		return &RefusedError{ID: svid.ID, Reason: types.PermissionDeniedDetails_AGENT_NOT_ATTESTED, again: true}
	case st.Code() == codes.PermissionDenied && st.Message() == nodeattest.KeyUnknown:
		return badToken("issuer %s does not know this node's key, and there is no join token: %s", addr, tokenMend(method))
	case st.Code() == codes.PermissionDenied && st.Message() == nodeattest.AgentBanned:
		if svid, _ := c.id.current(); svid != nil {
			return &RefusedError{ID: svid.ID, Reason: types.PermissionDeniedDetails_AGENT_BANNED}
		}
	case st.Code() == codes.FailedPrecondition && isMissing(st.Message()) && method == nodeattest.JoinKey:
		return fatal("issuer %s has no node attestation by join_key: Lanyard's issuer has it, a spire-server has not; choose another NodeAttestor, such as join_token or x509pop", addr)
	case st.Code() == codes.FailedPrecondition && isMissing(st.Message()):
		return fatal("issuer %s has no node attestation by %s: configure NodeAttestor %q there, or another one here", addr, method, method)
	}
	return err
}

func isMissing(message string) bool {
	return len(message) >= len(nodeattest.MethodMissing) && message[:len(nodeattest.MethodMissing)] == nodeattest.MethodMissing
}

// tokenMend says how to get a token of the method.
func tokenMend(method string) string {
	if method == nodeattest.JoinKey {
		return NewKeyTokenMend
	}
	return newTokenMend
}

// agentCSR is the request that spire-agent sends: the issuer uses its public
// key alone.
func agentCSR(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}},
	}, key)
}

// takeSVID has set take an SVID of the agent.
func (c *Client) takeSVID(p *types.X509SVID, set func([]*x509.Certificate) error) error {
	chain, err := parseChain(p.GetCertChain())
	if err != nil {
		return fmt.Errorf("the issuer's answer has no usable agent SVID: %w", err)
	}
	defer c.moved.fire()
	return set(chain)
}

// takeAttested takes the SVID of an agent that has attested.
func (c *Client) takeAttested(result *agentv1.AttestAgentResponse_Result) error {
	return c.takeSVID(result.GetSvid(), func(chain []*x509.Certificate) error {
		return c.id.setSVID(chain, result.GetReattestable(), time.Now())
	})
}
