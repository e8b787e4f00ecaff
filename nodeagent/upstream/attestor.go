package upstream

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Attestor proves to the issuer what this node is, by one method of node
// attestation. Those there are in package attest.
type Attestor interface {
	// Kind returns the type of the attestation, and whether the same proof can be
	// given again at any later time.
	Kind() (method string, again bool)
	// Check reports what keeps the node from joining for the first time and
	// waiting would not mend.
	Check() error
	// Begin starts one attempt.
	Begin(ctx context.Context, a Attempt) (Proof, error)
}

// Attempt is one attempt to join.
type Attempt struct {
	TrustDomain spiffeid.TrustDomain
	// CSRKeyHash is the SHA-256 of the SubjectPublicKeyInfo that the SVID is for.
	CSRKeyHash [32]byte
	// Joined says that this agent has joined before, and is not known to have
	// been evicted since.
	Joined bool
}

// Proof is what an [Attestor] has to show in one attempt.
type Proof struct {
	Payload []byte
	// Respond answers the issuer's challenges; nil where the method has none.
	Respond func(ctx context.Context, challenge []byte, exporter Exporter) ([]byte, error)
	// Token names the join token that is shown without giving it away; "" is
	// none.
	Token string
}

// Exporter gives keying material of the TLS connection to the issuer
// (tls.ConnectionState.ExportKeyingMaterial).
type Exporter func(label string, context []byte, n int) ([]byte, error)

// ErrNoIdentity says that the agent has no SVID and nothing to get one with.
var ErrNoIdentity = errors.New("the agent has not joined and has no join token: " + newTokenMend)

// Transient marks an error of [Attestor].Begin that waiting may mend.
func Transient(err error) error { return transientError{err} }

type transientError struct{ error }

func (e transientError) Unwrap() error { return e.error }

// Redacted names a token without giving it away: its first characters.
func Redacted(token string) string {
	const shown = 8
	if len(token) <= 2*shown {
		return "(not shown)"
	}
	return token[:shown] + "…"
}
