package tlsend

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// verify is where a peer is verified and authorized, in full handshakes and resumed ones.
func (e *End) verify(ctx context.Context, id *identity.Identity, cs tls.ConnectionState, clientAddr string) (policy.Decision, error) {
	var peer spiffeid.ID
	switch {
	case len(cs.PeerCertificates) > 0:
		var err error
		if peer, err = e.trust(id, cs).Verify(cs.PeerCertificates, e.cfg.Now()); err != nil {
			return policy.Decision{}, err
		}
	case !e.cfg.NoClientAuth:
		return policy.Decision{}, mtls.ErrNoPeerCertificate
	}
	d := e.cfg.Policy.Decide(ctx, e.request(id, peer, cs, clientAddr))
	if !d.Allowed {
		return d, refused(peer, d)
	}
	return d, nil
}

func refused(peer spiffeid.ID, d policy.Decision) error {
	return &mtls.RefusedError{ID: peer, Reason: errors.New(d.Reason)}
}

// request is what the policy is asked about a verified peer.
func (e *End) request(id *identity.Identity, peer spiffeid.ID, cs tls.ConnectionState, clientAddr string) policy.Request {
	r := policy.Request{Own: id.ID(), Tunnel: e.cfg.Tunnel, Direction: string(e.direction), ServerName: cs.ServerName,
		ClientAddr: clientAddr, Listen: e.cfg.Listen, Target: e.cfg.Target}
	if id.IsSPIFFE() && !e.cfg.Pins {
		r.Peer = peer
	}
	if len(cs.PeerCertificates) > 0 {
		r.Certificate = cs.PeerCertificates[0]
	}
	return r
}

// describe puts what is known of the connection into rec.
func (e *End) describe(rec *record.Record, id *identity.Identity, cs tls.ConnectionState) {
	// Without a usable certificate the peer stays unknown.
	rec.Peer, _ = mtls.PeerID(cs)
	rec.PeerClaimed = e.cfg.Pins && !rec.Peer.IsZero()
	if len(cs.PeerCertificates) > 0 && !id.IsSPIFFE() {
		rec.PeerSubject = cs.PeerCertificates[0].Subject.String()
	}
	rec.ServerName = cs.ServerName
	rec.Resumed = cs.DidResume // whoever was refused all the same too
	if !cs.HandshakeComplete {
		return
	}
	rec.TLSVersion = tls.VersionName(cs.Version)
	rec.Cipher = tls.CipherSuiteName(cs.CipherSuite)
	if cs.CurveID != 0 {
		rec.Group = cs.CurveID.String()
	}
	rec.ALPN = cs.NegotiatedProtocol
}

// fail closes sock and says in rec why the handshake failed.
func (e *End) fail(ctx context.Context, sock *pipe.Socket, rec *record.Record, cs tls.ConnectionState, err error) {
	rec.End(cause(ctx, err, cs))
	var refusal *mtls.RefusedError
	verified := errors.As(err, &refusal) && !e.cfg.Pins // and refused for what it is
	rec.PeerClaimed = !rec.Peer.IsZero() && !verified
	switch rec.Cause {
	case record.Refused, record.HandshakeFailed, record.NoIdentity: // with an alert, most likely
		sock.CloseRefused()
	default:
		sock.Close()
	}
}
