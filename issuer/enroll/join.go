package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/joinkey"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// byToken admits who shows a join token that is not spent, or spent by the CSR's key.
func (e *Enroller) byToken(ctx context.Context, attempt Attempt, csr *x509.CertificateRequest) (Admission, error) {
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
	join := store.Join{Token: token, KeyHash: keyHash(csr), Now: e.cfg.Now()}
	// Whoever guesses tokens has nothing signed: with RSA that is milliseconds each.
	if err := e.cfg.Store.CheckToken(ctx, join); err != nil {
		return Admission{}, joinError(err)
	}
	return e.sign(ctx, id, csr, false, func(agent *storepb.Agent) (*storepb.Agent, store.Revision, error) {
		agent.AttestationType = attempt.Method
		agent.Selectors = registration.SelectorsProto(e.selectors(id, nil))
		join.Agent = agent
		return e.cfg.Store.SpendToken(ctx, join)
	})
}

// byKey admits who proves a key of its own: one that is bound already, or with
// a token that has a use left.
func (e *Enroller) byKey(ctx context.Context, attempt Attempt, csr *x509.CertificateRequest) (Admission, error) {
	claim, err := e.proveKey(ctx, attempt, csr)
	if err != nil {
		return Admission{}, fmt.Errorf("nodeattestor(%s): %w", attempt.Method, err)
	}
	join := store.KeyJoin{KeyHash: claim.KeyHash, Token: claim.Token, Peer: attempt.Peer, Now: e.cfg.Now()}
	for {
		id, err := e.cfg.Store.KeyAgent(ctx, join)
		if err != nil {
			return Admission{}, joinError(err)
		}
		admission, err := e.signKey(ctx, attempt.Method, id, csr, join)
		if errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			continue // another attempt of the same key, with another token, came between
		}
		return admission, err
	}
}

func (e *Enroller) signKey(ctx context.Context, method string, id spiffeid.ID, csr *x509.CertificateRequest, join store.KeyJoin) (Admission, error) {
	return e.sign(ctx, id, csr, true, func(agent *storepb.Agent) (*storepb.Agent, store.Revision, error) {
		agent.AttestationType = method
		agent.Selectors = registration.SelectorsProto(e.selectors(id, nil))
		// Nodes with one token take turns: each use of it changes what the
		// others have read, and a thousand of them would try a million times.
		if join.Token != "" {
			done, err := e.turns.take(ctx, join.Token)
			if err != nil {
				return nil, 0, err
			}
			defer done()
		}
		return e.cfg.Store.BindKey(ctx, join, agent)
	})
}

// proveKey has the agent prove the key that it claims. Only then is the token
// looked at: guessing tokens costs a handshake and a signature each.
func (e *Enroller) proveKey(ctx context.Context, attempt Attempt, csr *x509.CertificateRequest) (*joinkey.Claim, error) {
	claim, err := joinkey.ParseClaim(attempt.Payload)
	if err != nil {
		return nil, Malformed(err)
	}
	challenge, err := joinkey.NewChallenge()
	if err != nil {
		return nil, err
	}
	response, err := attempt.Challenge(ctx, challenge)
	if err != nil {
		return nil, err
	}
	err = claim.Verify(challenge, response, joinkey.Attempt{TrustDomain: e.cfg.TrustDomain, CSRKeyHash: keyHash(csr), Exporter: attempt.Exporter})
	if err != nil {
		return nil, Refused(err)
	}
	return claim, nil
}
