// Package outbound owns connections that come in as plaintext and go on to the
// target as mutual TLS. It does not listen, choose the rules or obtain
// identities.
package outbound

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

// Identity has the identity to connect with.
type Identity interface {
	// Wait returns the identity in use, and waits for one until ctx ends. The
	// error says why there is none.
	Wait(ctx context.Context) (*identity.Identity, error)
}

// Config is what a Handler needs; ServerName and Buffers may be zero.
type Config struct {
	Identity Identity
	Policy   policy.Policy
	// Dial connects to the target: a TCP or UNIX socket.
	Dial func(context.Context) (net.Conn, error)
	// ServerName is sent as SNI; it plays no part in verification.
	ServerName string
	// ConnectTimeout is the time for identity, dial and handshake together.
	ConnectTimeout time.Duration
	Buffers        *pipe.Buffers
}

// Handler handles outbound connections.
type Handler struct {
	cfg    Config
	config func(*identity.Identity) *tls.Config
}

// New returns a Handler for cfg.
func New(cfg Config) *Handler {
	if cfg.Buffers == nil {
		cfg.Buffers = new(pipe.Buffers)
	}
	return &Handler{cfg: cfg, config: tlsend.Client(cfg.Policy, cfg.ServerName)}
}

// Handle implements accept.Handler.
func (h *Handler) Handle(ctx context.Context, conn net.Conn, rec *record.Record) {
	sock, err := pipe.NewSocket(conn, h.cfg.Buffers)
	if err != nil {
		conn.Close()
		rec.End(record.Failed, err)
		return
	}
	target := h.connect(ctx, rec)
	if target == nil {
		// A reset, not an end: the application must not take this for an answer.
		sock.Reset()
		return
	}
	rec.Piped(pipe.Join(ctx, pipe.Plain(sock), target))
}

// connect brings the target's end up. If it cannot, rec says why.
func (h *Handler) connect(ctx context.Context, rec *record.Record) *pipe.End {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.ConnectTimeout)
	defer cancel()
	id, err := h.cfg.Identity.Wait(ctx)
	if err != nil {
		rec.End(tlsend.NoIdentity(ctx, err))
		return nil
	}
	rec.Own = id.ID()
	conn, err := h.cfg.Dial(ctx)
	if err != nil {
		rec.End(record.DialFailed, err)
		if ctx.Err() != nil {
			rec.End(tlsend.Expired(ctx, record.DialTimeout))
		}
		return nil
	}
	sock, err := pipe.NewSocket(conn, h.cfg.Buffers)
	if err != nil {
		conn.Close()
		rec.End(record.Failed, err)
		return nil
	}
	secure := tls.Client(sock, h.config(id))
	if !tlsend.Handshake(ctx, sock, secure, h.cfg.Policy, id, rec) {
		return nil
	}
	return pipe.TLS(sock, secure)
}
