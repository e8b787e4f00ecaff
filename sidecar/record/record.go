// Package record owns the one record that each connection leaves, however it
// ended. It does not decide what happens to a connection.
package record

import (
	"context"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
)

// Cause is how a connection ended. The values are stable: people search for them.
type Cause string

// The causes, in the order of a connection's life.
const (
	NoIdentity       Cause = "no identity yet"   // none came within the connect timeout
	HandshakeTimeout Cause = "handshake timeout" // not done within the connect timeout
	HandshakeFailed  Cause = "handshake failed"
	Refused          Cause = "refused"         // by this end's rules
	RefusedByPeer    Cause = "refused by peer" // by an alert
	DialTimeout      Cause = "dial timeout"
	DialFailed       Cause = "dial failed"
	Closed           Cause = "closed"    // by both ends, in order
	Reset            Cause = "reset"     // by one end
	Truncated        Cause = "truncated" // by a TLS peer that sent no close_notify
	TimedOut         Cause = "timed out" // an end stopped answering the kernel
	Failed           Cause = "failed"
	Shutdown         Cause = "shutdown" // cut off when draining took too long
)

// Direction is which side of it speaks TLS.
type Direction string

const (
	Inbound  Direction = "inbound"  // TLS in, plaintext out
	Outbound Direction = "outbound" // plaintext in, TLS out
)

// Record is filled in by whoever handles the connection, and logged once.
type Record struct {
	Direction Direction
	Client    string // address of the end that connected
	Target    string // where it is forwarded to, as configured
	Start     time.Time

	Own  spiffeid.ID // zero before there is an identity
	Peer spiffeid.ID // zero if it is not known
	// PeerClaimed is true if Peer is what an unverified certificate says.
	PeerClaimed bool
	Rule        string // what allowed the peer
	Resumed     bool   // the TLS session was resumed

	Forwarded int64 // bytes towards the target
	Returned  int64 // bytes back from it
	Drained   bool  // it ended while the sidecar was shutting down
	Cause     Cause
	Err       error
}

// End sets the cause and the error, if there is one.
func (r *Record) End(c Cause, err error) { r.Cause, r.Err = c, err }

// Log writes the record to log, once: at level info if both ends got what they
// wanted, else as a warning.
func (r *Record) Log(ctx context.Context, log *slog.Logger) {
	level := slog.LevelWarn
	if r.Cause == Closed || r.Cause == Reset {
		level = slog.LevelInfo
	}
	attrs := []slog.Attr{
		slog.String("direction", string(r.Direction)),
		slog.String("cause", string(r.Cause)),
		slog.String("client", r.Client),
		slog.String("target", r.Target),
		slog.String("spiffe_id", text(r.Own)),
		slog.String("peer_spiffe_id", text(r.Peer)),
		slog.String("rule", r.Rule),
		slog.Int64("forwarded", r.Forwarded),
		slog.Int64("returned", r.Returned),
		slog.Duration("duration", time.Since(r.Start)),
	}
	if r.PeerClaimed {
		attrs = append(attrs, slog.Bool("peer_unverified", true))
	}
	if r.Resumed {
		attrs = append(attrs, slog.Bool("resumed", true))
	}
	if r.Drained {
		attrs = append(attrs, slog.Bool("drained", true))
	}
	if r.Err != nil {
		attrs = append(attrs, slog.String("error", r.Err.Error()))
	}
	log.LogAttrs(ctx, level, "connection", attrs...)
}

func text(id spiffeid.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// Piped takes over what the pipe did.
func (r *Record) Piped(res pipe.Result) {
	r.Forwarded, r.Returned = res.Forward, res.Backward
	switch res.Cause {
	case pipe.Closed:
		r.End(Closed, nil)
	case pipe.Reset:
		r.End(Reset, res.Err)
	case pipe.TimedOut:
		r.End(TimedOut, res.Err)
	case pipe.Truncated:
		r.End(Truncated, res.Err)
	case pipe.Alert:
		r.End(RefusedByPeer, res.Err)
	case pipe.Aborted:
		r.End(Shutdown, res.Err)
	default:
		r.End(Failed, res.Err)
	}
}
