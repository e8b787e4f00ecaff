// Package tlsend owns the TLS end of a connection up to the end of its handshake: the configuration of each version of an
// identity, who the peer is, what allowed it, and why it failed. It neither accepts nor dials, and moves no bytes. How a
// peer's certificates are verified is internal/mtls's part, who is wanted is the policy's.
package tlsend

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// cause names the failure of a handshake.
func cause(ctx context.Context, err error, state tls.ConnectionState) (record.Cause, error) {
	var netErr net.Error
	switch {
	case ctx.Err() != nil:
		return Expired(ctx, record.HandshakeTimeout)
	case errors.Is(err, errNoCertificate):
		return record.NoIdentity, err
	case isAlert(err):
		return record.RefusedByPeer, err
	case len(state.PeerCertificates) == 0, errors.Is(err, io.EOF), errors.As(err, &netErr):
		return record.HandshakeFailed, err
	default:
		// There is a certificate, and nothing is wrong with the connection: what
		// failed is the verification or the rule.
		return record.Refused, err
	}
}

func isAlert(err error) bool {
	opErr, ok := errors.AsType[*net.OpError](err)
	return ok && opErr.Op == "remote error"
}

// NoIdentity is the end of a connection that found no identity until ctx ended;
// why is what the source of identities says.
func NoIdentity(ctx context.Context, why error) (record.Cause, error) {
	if cause, err := Expired(ctx, record.NoIdentity); cause != record.NoIdentity {
		return cause, err
	}
	if errors.Is(why, identity.ErrExpired) {
		return record.Expired, why
	}
	return record.NoIdentity, why
}

// Expired is the cause and error of a step that was cut off with ctx: by its
// deadline, which means cause, or by the sidecar's end.
func Expired(ctx context.Context, cause record.Cause) (record.Cause, error) {
	err := context.Cause(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return cause, errors.New("--connect-timeout passed")
	}
	return record.Shutdown, err
}
