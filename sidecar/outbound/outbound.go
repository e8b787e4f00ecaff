// Package outbound owns how connections that come in as plaintext are brought
// up: a connection to the target, and a handshake on it. It does not listen,
// choose the rules or obtain identities, and moves no bytes.
package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
)

// Identity has the identity to connect with.
type Identity interface {
	// Wait returns the identity in use, and waits for one until ctx ends. The
	// error says why there is none.
	Wait(ctx context.Context) (*identity.Identity, error)
	// Current is Wait without the waiting.
	Current() (*identity.Identity, error)
}

// Config is what a Handler needs.
type Config struct {
	Identity Identity
	TLS      *tlsend.End
	// Dial connects to the target, over a proxy if that is asked for, for the
	// connection near, or nil for nobody.
	Dial    func(ctx context.Context, near net.Conn) (net.Conn, error)
	Buffers *pipe.Buffers
}

// Handler handles outbound connections.
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
	if target = h.connectTarget(ctx, a); target == nil {
		// A reset, not an end: the application must not take this for an answer.
		sock.Reset()
		return nil, nil
	}
	return pipe.Plain(sock), target
}

// connectTarget brings the target's end up. If it cannot, the record says why.
func (h *Handler) connectTarget(ctx context.Context, a *accept.Attempt) *pipe.End {
	rec := a.Record
	id, err := h.cfg.Identity.Wait(ctx)
	if err != nil {
		rec.End(tlsend.NoIdentity(ctx, err))
		if ctx.Err() == nil { // nobody brings one any more
			rec.End(record.NoIdentity, err)
		}
		return nil
	}
	rec.Own = id.ID()
	conn, err := h.cfg.Dial(ctx, a.Conn)
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
	secure, ok := h.cfg.TLS.Handshake(ctx, sock, id, rec)
	if !ok {
		return nil
	}
	if !a.Admit(ctx) {
		sock.Reset()
		return nil
	}
	return pipe.TLS(sock, secure)
}

// Probe connects to the target and shakes hands with it, and no more: the error
// is why a connection would not come about now.
func (h *Handler) Probe(ctx context.Context) error {
	id, err := h.cfg.Identity.Current()
	if err != nil {
		return err
	}
	conn, err := h.cfg.Dial(ctx, nil)
	if err != nil {
		return err
	}
	sock, err := pipe.NewSocket(conn, h.cfg.Buffers)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	rec := &record.Record{Start: time.Now()}
	secure, ok := h.cfg.TLS.Handshake(ctx, sock, id, rec)
	if !ok {
		return fmt.Errorf("%s: %w", rec.Cause, rec.Err)
	}
	return secure.Close()
}
