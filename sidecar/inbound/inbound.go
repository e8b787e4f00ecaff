// Package inbound owns how connections that come in as mutual TLS are brought
// up: handshake, then a plaintext connection to the target. It does not listen,
// choose the rules or obtain identities, and moves no bytes.
package inbound

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
)

// Identity has the identity to serve with.
type Identity interface {
	// Wait returns the identity in use, and waits for one until ctx ends. The
	// error says why there is none.
	Wait(ctx context.Context) (*identity.Identity, error)
}

// Config is what a Handler needs; the fields about the PROXY protocol may be zero.
type Config struct {
	Identity Identity
	TLS      *tlsend.End
	// Dial connects to the target, a TCP or UNIX socket, for the connection near.
	Dial    func(ctx context.Context, near net.Conn) (net.Conn, error)
	Buffers *pipe.Buffers
	// SendProxy is what the target is told of the client.
	SendProxy proxyproto.Mode
	// Balancers are those whose connections begin with a PROXY header.
	Balancers proxyproto.Trusted
}

// Handler handles inbound connections.
type Handler struct{ cfg Config }

// New returns a Handler for cfg.
func New(cfg Config) *Handler { return &Handler{cfg} }

// Connect implements accept.Handler.
func (h *Handler) Connect(ctx context.Context, a *accept.Attempt) (client, target *pipe.End) {
	sock, err := pipe.NewSocket(a.Conn, h.cfg.Buffers)
	if err != nil {
		a.Conn.Close()
		a.Record.End(record.Failed, err)
		return nil, nil
	}
	about, ok := h.readProxyHeader(ctx, a)
	if !ok {
		sock.Reset()
		return nil, nil
	}
	conn, ok := h.handshake(ctx, sock, a)
	if !ok {
		return nil, nil
	}
	backend := h.connectTarget(ctx, a, about, conn)
	if backend == nil {
		// A reset, not an end: the peer must not take this for an answer.
		sock.Reset()
		return nil, nil
	}
	return pipe.TLS(sock, conn), pipe.Plain(backend)
}

// past is a deadline that wakes whoever waits.
func past() time.Time { return time.Unix(1, 0) }

// readProxyHeader takes in what a balancer says about the client it connects for.
func (h *Handler) readProxyHeader(ctx context.Context, a *accept.Attempt) (proxyproto.Info, bool) {
	about := proxyproto.Info{Source: a.Conn.RemoteAddr(), Destination: a.Conn.LocalAddr()}
	if !h.cfg.Balancers.Contains(a.Conn.RemoteAddr()) {
		return about, true
	}
	stop := context.AfterFunc(ctx, func() { a.Conn.SetReadDeadline(past()) })
	said, err := proxyproto.Read(a.Conn)
	switch {
	case !stop():
		a.Record.End(tlsend.Expired(ctx, record.HandshakeTimeout))
		return about, false
	case err != nil:
		a.Record.End(record.ProxyHeader, err)
		return about, false
	case said.Source != nil: // nil: the balancer speaks for itself, as in its health checks
		a.Record.Client = said.Source.String()
		return proxyproto.Info{Source: said.Source, Destination: said.Destination}, true
	}
	return about, true
}

// handshake makes the TLS connection and admits its peer. If it returns false,
// sock is closed and the record says why.
func (h *Handler) handshake(ctx context.Context, sock *pipe.Socket, a *accept.Attempt) (*tls.Conn, bool) {
	id, err := h.cfg.Identity.Wait(ctx)
	if err != nil {
		a.Record.End(tlsend.NoIdentity(ctx, err))
		if ctx.Err() == nil { // nobody brings one any more
			a.Record.End(record.NoIdentity, err)
		}
		sock.Close()
		return nil, false
	}
	a.Record.Own = id.ID()
	conn, ok := h.cfg.TLS.Handshake(ctx, sock, id, a.Record)
	if !ok {
		return nil, false
	}
	if !a.Admit(ctx) {
		sock.Reset()
		return nil, false
	}
	return conn, true
}

// connectTarget connects to the target and tells it what it is to know. If it
// returns nil, the record says why.
func (h *Handler) connectTarget(ctx context.Context, a *accept.Attempt, about proxyproto.Info, client *tls.Conn) *pipe.Socket {
	conn, err := h.cfg.Dial(ctx, a.Conn)
	if err == nil {
		if err = h.sendProxyHeader(ctx, conn, a, about, client); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		a.Record.End(record.DialFailed, err)
		if ctx.Err() != nil {
			a.Record.End(tlsend.Expired(ctx, record.DialTimeout))
		}
		return nil
	}
	sock, err := pipe.NewSocket(conn, h.cfg.Buffers)
	if err != nil {
		conn.Close()
		a.Record.End(record.Failed, err)
		return nil
	}
	return sock
}

// sendProxyHeader tells the target about the client, until ctx ends: a header with
// a large certificate may not fit into the send buffer at once.
func (h *Handler) sendProxyHeader(ctx context.Context, conn net.Conn, a *accept.Attempt, about proxyproto.Info, client *tls.Conn) error {
	if h.cfg.SendProxy == "" {
		return nil
	}
	state := client.ConnectionState()
	about.TLS = &state
	if !a.Record.Peer.IsZero() && !a.Record.PeerClaimed {
		about.SPIFFEID = a.Record.Peer.String()
	}
	header, err := proxyproto.Header(h.cfg.SendProxy, about)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetWriteDeadline(past()) })
	defer stop()
	_, err = conn.Write(header)
	return err
}
