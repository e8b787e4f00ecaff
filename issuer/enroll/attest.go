package enroll

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
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
	// Reattestable says whether the agent can join again when its SVID is lost.
	Reattestable bool
}

// Attest admits an agent. The CSR is checked before anything is spent, so that
// a malformed one does not cost the token; the SVID is signed before the token
// is spent, so that neither does a failure to sign, and is released only after.
// The same key may come again with the same token, in case its answer was lost.
// On return this issuer knows the agent.
func (e *Enroller) Attest(ctx context.Context, attempt Attempt) (Admission, error) {
	if attempt.Method != nodeattest.JoinToken {
		return Admission{}, fmt.Errorf("%w: could not find node attestor type %q", ErrUnknownMethod, attempt.Method)
	}
	csr, err := ca.ParseCSR(attempt.CSR)
	if err != nil {
		return Admission{}, err
	}
	token, err := nodeattest.ParseJoinToken(attempt.Payload)
	if err != nil {
		// What cannot be a token was never created.
		return Admission{}, ErrTokenSpent
	}
	id, err := nodeattest.JoinTokenAgentID(e.cfg.TrustDomain, token)
	if err != nil {
		return Admission{}, err
	}
	if known, ok := e.cfg.Registry.Agent(id); ok && Banned(known) {
		return Admission{}, ErrBanned
	}
	chain, err := e.cfg.CA.SignAgentSVID(ctx, id, csr.PublicKey)
	if err != nil {
		return Admission{}, err
	}
	_, rev, err := e.cfg.Store.SpendToken(ctx, store.Join{
		Token:   token,
		KeyHash: sha256.Sum256(csr.RawSubjectPublicKeyInfo),
		Agent: &storepb.Agent{
			SpiffeId:        id.String(),
			AttestationType: attempt.Method,
			Serial:          chain[0].SerialNumber.String(),
			NotAfter:        chain[0].NotAfter.Unix(),
		},
		Now: e.cfg.Now(),
	})
	if err != nil {
		return Admission{}, joinError(err)
	}
	return Admission{ID: id, SVID: chain}, e.cfg.Registry.Wait(ctx, rev)
}

func joinError(err error) error {
	switch {
	case errors.Is(err, store.ErrTokenUnknown):
		return ErrTokenSpent
	case errors.Is(err, store.ErrTokenExpired):
		return ErrTokenExpired
	case errors.Is(err, store.ErrAgentBanned):
		return ErrBanned
	}
	return err
}

// Banned reports whether agent may neither call nor join.
func Banned(agent *storepb.Agent) bool {
	return agent.GetBanned() || agent.GetSerial() == ""
}
