package enroll

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// Method verifies one kind of node attestation. What it is given comes from a
// stranger. It keeps no record of who joined: the same evidence may come again.
type Method interface {
	// Attest verifies what an agent shows and says who it is. Its error wraps
	// [ErrMalformed] where what was sent cannot be understood, [ErrRefused]
	// where it proves nothing; any other is the issuer's own trouble. The text
	// goes to the agent: it has no secret in it.
	Attest(ctx context.Context, c Conversation) (Evidence, error)
}

// Conversation is one attempt to join, as a [Method] sees it.
type Conversation struct {
	// Payload is what the agent sent first.
	Payload []byte
	// Challenge sends a challenge to the agent and returns its response.
	Challenge func(ctx context.Context, challenge []byte) (response []byte, err error)
	// Peer is the address that the agent's connection comes from; the zero Addr
	// where that is not known.
	Peer netip.Addr
	// Exporter gives keying material of the agent's TLS connection (RFC 8446,
	// section 7.5); nil where there is none.
	Exporter Exporter
	// Now is the time of the attempt.
	Now time.Time
}

// Exporter gives n bytes of keying material that both ends of one TLS
// connection have, and nobody else (tls.ConnectionState.ExportKeyingMaterial).
type Exporter func(label string, context []byte, n int) ([]byte, error)

// Evidence is what a [Method] found out.
type Evidence struct {
	// ID becomes the agent's; it is below /spire/agent/METHOD/.
	ID spiffeid.ID
	// Selectors have the method's name as type.
	Selectors []registration.Selector
	// Reattestable says whether the agent can prove itself again at any time,
	// and so joins anew where others renew. Of one that is not, no second agent
	// is admitted as ID.
	Reattestable bool
}

// Errors of methods. [Malformed] and [Refused] make such without these words in
// front, for texts that clients know.
var (
	// ErrMalformed says that what the agent sent cannot be understood
	// (InvalidArgument).
	ErrMalformed = errors.New("malformed attestation")
	// ErrRefused says that what the agent sent does not prove what it must
	// (PermissionDenied).
	ErrRefused = errors.New("attestation refused")
)

// verdict is an error of one of the kinds above with a text of its own.
type verdict struct{ kind, err error }

func (v verdict) Error() string   { return v.err.Error() }
func (v verdict) Unwrap() []error { return []error{v.kind, v.err} }

// Malformed returns an error that wraps [ErrMalformed] and err, with err's text.
func Malformed(err error) error { return verdict{ErrMalformed, err} }

// Refused returns an error that wraps [ErrRefused] and err, with err's text.
func Refused(err error) error { return verdict{ErrRefused, err} }
