package enroll

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// Attempt is what an agent shows to join.
type Attempt struct {
	// Method names the kind of attestation.
	Method string
	// Payload is the method's.
	Payload []byte
	// CSR is PKCS #10 in DER; only its key counts.
	CSR []byte
	// Challenge sends a challenge to the agent and returns its response; nil
	// where there is no way to.
	Challenge func(ctx context.Context, challenge []byte) (response []byte, err error)
	// Peer is the address of the agent's connection, behind a trusted proxy the
	// one that it tells; the zero Addr if it is not known.
	Peer netip.Addr
	// Exporter is of the agent's TLS connection; nil without one.
	Exporter Exporter
}

// Admission is an agent that has joined.
type Admission struct {
	ID spiffeid.ID
	// SVID is the agent's chain, leaf first.
	SVID []*x509.Certificate
	// Reattestable says whether the agent joins again where others renew.
	Reattestable bool
}

// Attest admits an agent. The CSR is checked before anything is spent, so that
// a malformed one does not cost the token, and proves that the agent holds the
// key; the SVID is signed before the token is spent, so that neither does a
// failure to sign, and is released only after. What is shown by a key may be
// shown again by it, in case its answer was lost. On return this issuer knows
// the agent.
func (e *Enroller) Attest(ctx context.Context, attempt Attempt) (Admission, error) {
	method := e.cfg.Methods[attempt.Method]
	if method == nil && attempt.Method != nodeattest.JoinToken && attempt.Method != nodeattest.JoinKey {
		return Admission{}, fmt.Errorf("%w: could not find node attestor type %q", ErrUnknownMethod, attempt.Method)
	}
	csr, err := ca.ParseCSR(attempt.CSR)
	if err != nil {
		return Admission{}, err
	}
	if attempt.Challenge == nil {
		attempt.Challenge = func(context.Context, []byte) ([]byte, error) {
			return nil, errors.New("the agent cannot be challenged here")
		}
	}
	switch attempt.Method {
	case nodeattest.JoinToken:
		return e.byToken(ctx, attempt, csr)
	case nodeattest.JoinKey:
		return e.byKey(ctx, attempt, csr)
	}
	return e.byMethod(ctx, method, attempt, csr)
}

// byMethod admits who a configured method says the agent is.
func (e *Enroller) byMethod(ctx context.Context, method Method, attempt Attempt, csr *x509.CertificateRequest) (Admission, error) {
	evidence, err := method.Attest(ctx, Conversation{
		Payload: attempt.Payload, Challenge: attempt.Challenge, Peer: attempt.Peer, Exporter: attempt.Exporter, Now: e.cfg.Now(),
	})
	if err != nil {
		return Admission{}, fmt.Errorf("nodeattestor(%s): %w", attempt.Method, err)
	}
	if err := e.checkID(attempt.Method, evidence.ID); err != nil {
		return Admission{}, fmt.Errorf("nodeattestor(%s): %w", attempt.Method, err)
	}
	known, ok := e.cfg.Registry.Agent(evidence.ID)
	switch {
	case ok && Banned(known):
		return Admission{}, ErrBanned
	case ok && !evidence.Reattestable:
		return Admission{}, ErrUsed
	}
	return e.sign(ctx, evidence.ID, csr, evidence.Reattestable, func(agent *storepb.Agent) (*storepb.Agent, store.Revision, error) {
		agent.AttestationType = attempt.Method
		agent.Selectors = registration.SelectorsProto(e.selectors(evidence.ID, evidence.Selectors))
		return e.cfg.Store.AdmitAgent(ctx, agent)
	})
}

// checkID refuses what no method may make of an agent: the issuer, something
// outside the trust domain, or an agent that another kind of proof stands for.
func (e *Enroller) checkID(method string, id spiffeid.ID) error {
	const agents = "/spire/agent/"
	switch {
	case !id.MemberOf(e.cfg.TrustDomain), id.Path() == "":
		return fmt.Errorf("agent ID %q is no member of trust domain %q", id, e.cfg.TrustDomain.Name())
	case id.Path() == "/spire/server":
		return errors.New("agent ID cannot collide with the server ID")
	case strings.HasPrefix(id.Path(), agents+nodeattest.JoinToken+"/"), strings.HasPrefix(id.Path(), agents+nodeattest.JoinKey+"/"):
		return fmt.Errorf("agent ID %s is for agents that join by token: change agent_path_template", id)
	case !strings.HasPrefix(id.Path(), agents+method+"/"):
		// As SPIRE: there are templates in use that make such IDs.
		e.cfg.Log.Warn("the ID of an agent is not below that of its method", "id", id.String(), "method", method)
	}
	return nil
}

// selectors returns those of an agent, each once.
func (e *Enroller) selectors(id spiffeid.ID, found []registration.Selector) []registration.Selector {
	if e.cfg.AgentIDAsSelector {
		found = append(found[:len(found):len(found)], registration.Selector{Type: "spiffe_id", Value: id.String()})
	}
	return registration.SortSelectors(found)
}

// sign signs an SVID for the agent, has admit write the record with its serial,
// and waits until this issuer knows it.
func (e *Enroller) sign(ctx context.Context, id spiffeid.ID, csr *x509.CertificateRequest, reattestable bool, admit func(*storepb.Agent) (*storepb.Agent, store.Revision, error)) (Admission, error) {
	chain, err := e.cfg.CA.SignAgentSVID(ctx, id, csr.PublicKey)
	if err != nil {
		return Admission{}, err
	}
	_, rev, err := admit(&storepb.Agent{
		SpiffeId:    id.String(),
		Serial:      chain[0].SerialNumber.String(),
		NotAfter:    chain[0].NotAfter.Unix(),
		CanReattest: reattestable,
	})
	if err != nil {
		return Admission{}, joinError(err)
	}
	return Admission{ID: id, SVID: chain, Reattestable: reattestable}, e.cfg.Registry.Wait(ctx, rev)
}

func keyHash(csr *x509.CertificateRequest) [32]byte {
	return sha256.Sum256(csr.RawSubjectPublicKeyInfo)
}

func joinError(err error) error {
	switch {
	case errors.Is(err, store.ErrTokenUnknown):
		return ErrTokenSpent
	case errors.Is(err, store.ErrTokenExpired):
		return ErrTokenExpired
	case errors.Is(err, store.ErrTokenPlace):
		return ErrTokenPlace
	case errors.Is(err, store.ErrKeyUnknown):
		return ErrKeyUnknown
	case errors.Is(err, store.ErrAgentBanned):
		return ErrBanned
	case errors.Is(err, store.ErrExists):
		return ErrUsed
	}
	return err
}

// Banned reports whether agent may neither call nor join.
func Banned(agent *storepb.Agent) bool {
	return agent.GetBanned() || agent.GetSerial() == ""
}
