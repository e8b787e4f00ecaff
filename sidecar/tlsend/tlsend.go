// Package tlsend owns the TLS end of a connection up to the end of its
// handshake: who the peer is, what allowed it, and why it failed. It neither
// accepts nor dials, and moves no bytes.
package tlsend

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// Server gives the configuration that shows an identity to clients and lets in
// those that p allows.
func Server(p policy.Policy) func(*identity.Identity) *tls.Config {
	return identity.Configs(func(i *identity.Identity) *tls.Config {
		// A new configuration has new ticket keys: no session outlives a version.
		return mtls.Server(i, authorize(p, i.ID()), mtls.Options{})
	})
}

// Client gives the configuration that shows an identity to servers and accepts
// those that p allows. serverName is sent as SNI; it plays no part in
// verification.
func Client(p policy.Policy, serverName string) func(*identity.Identity) *tls.Config {
	return identity.Configs(func(i *identity.Identity) *tls.Config {
		cache := tls.NewLRUClientSessionCache(sessions)
		config := mtls.Client(i, authorize(p, i.ID()), mtls.Options{SessionCache: cache})
		config.ServerName = serverName
		return config
	})
}

// sessions is how many servers a client keeps a session of.
const sessions = 32

func authorize(p policy.Policy, own spiffeid.ID) mtls.Authorize {
	return func(peer spiffeid.ID) error {
		if d := p.Decide(context.TODO(), policy.Request{Own: own, Peer: peer}); !d.Allowed {
			return errors.New(d.Reason)
		}
		return nil
	}
}

// Handshake completes the handshake of conn, which was made over sock for
// identity i and a configuration of p, and puts into rec who the peer is. If it
// fails, it closes sock and rec says why.
func Handshake(ctx context.Context, sock *pipe.Socket, conn *tls.Conn, p policy.Policy, i *identity.Identity, rec *record.Record) bool {
	err := conn.HandshakeContext(ctx)
	state := conn.ConnectionState()
	// Without a usable certificate the peer stays unknown.
	rec.Peer, _ = mtls.PeerID(state)
	if err == nil {
		rec.Resumed = state.DidResume
		rec.Rule = p.Decide(ctx, policy.Request{Own: i.ID(), Peer: rec.Peer}).Rule
		return true
	}
	rec.End(cause(ctx, err, state))
	rec.PeerClaimed = !rec.Peer.IsZero()
	if refusal, ok := errors.AsType[*mtls.RefusedError](err); ok && refusal.ID == rec.Peer {
		rec.PeerClaimed = false // verified, and refused for what it is
	}
	switch rec.Cause {
	case record.Refused, record.HandshakeFailed: // with an alert, most likely
		sock.CloseRefused()
	default:
		sock.Close()
	}
	return false
}

// cause names the failure of a handshake.
func cause(ctx context.Context, err error, state tls.ConnectionState) (record.Cause, error) {
	var netErr net.Error
	switch {
	case ctx.Err() != nil:
		return Expired(ctx, record.HandshakeTimeout)
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
