// Package inbound owns connections that come in as mutual TLS and go on to the
// target as plaintext. It does not listen, choose the rules or obtain identities.
package inbound

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
)

// Identity has the identity to serve with.
type Identity interface {
	// Wait returns the identity in use, and waits for one until ctx ends. The
	// error says why there is none.
	Wait(ctx context.Context) (*identity.Identity, error)
}

// Config is what a Handler needs; all fields but Buffers are mandatory.
type Config struct {
	Identity Identity
	Policy   policy.Policy
	// Dial connects to the target: a TCP or UNIX socket.
	Dial func(context.Context) (net.Conn, error)
	// ConnectTimeout is the time for identity, handshake and dial together.
	ConnectTimeout time.Duration
	Buffers        *pipe.Buffers
}

// Handler handles inbound connections.
type Handler struct {
	cfg    Config
	config func(*identity.Identity) *tls.Config
}

// New returns a Handler for cfg.
func New(cfg Config) *Handler {
	if cfg.Buffers == nil {
		cfg.Buffers = new(pipe.Buffers)
	}
	return &Handler{cfg: cfg, config: tlsend.Server(cfg.Policy)}
}

// Handle implements accept.Handler.
func (h *Handler) Handle(ctx context.Context, conn net.Conn, rec *record.Record) {
	sock, err := pipe.NewSocket(conn, h.cfg.Buffers)
	if err != nil {
		conn.Close()
		rec.End(record.Failed, err)
		return
	}
	client, target := h.connect(ctx, sock, rec)
	if client == nil {
		return
	}
	rec.Piped(pipe.Join(ctx, client, target))
}

// connect brings both ends up. If it cannot, it closes sock and rec says why.
func (h *Handler) connect(ctx context.Context, sock *pipe.Socket, rec *record.Record) (client, target *pipe.End) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.ConnectTimeout)
	defer cancel()
	id, err := h.cfg.Identity.Wait(ctx)
	if err != nil {
		rec.End(tlsend.NoIdentity(ctx, err))
		sock.Close()
		return nil, nil
	}
	rec.Own = id.ID()
	conn := tls.Server(sock, h.config(id))
	if !tlsend.Handshake(ctx, sock, conn, h.cfg.Policy, id, rec) {
		return nil, nil
	}
	backend, err := h.dial(ctx, rec)
	if err != nil {
		// A reset, not an end: the peer must not take this for an answer.
		sock.Reset()
		return nil, nil
	}
	return pipe.TLS(sock, conn), pipe.Plain(backend)
}

func (h *Handler) dial(ctx context.Context, rec *record.Record) (*pipe.Socket, error) {
	conn, err := h.cfg.Dial(ctx)
	if err != nil {
		rec.End(record.DialFailed, err)
		if ctx.Err() != nil {
			rec.End(tlsend.Expired(ctx, record.DialTimeout))
		}
		return nil, err
	}
	sock, err := pipe.NewSocket(conn, h.cfg.Buffers)
	if err != nil {
		conn.Close()
		rec.End(record.Failed, err)
	}
	return sock, err
}
