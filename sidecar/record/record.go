// Package record owns the one record that each connection leaves, however it
// ended. It does not decide what happens to a connection.
package record

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
)

// Direction is which side of it speaks TLS.
type Direction string

const (
	Inbound  Direction = "inbound"  // TLS in, plaintext out
	Outbound Direction = "outbound" // plaintext in, TLS out
)

// Record is filled in by whoever handles the connection, and logged once.
// It is not safe for concurrent use.
type Record struct {
	Tunnel    string // empty where there is only one, without a name
	Direction Direction
	Client    string // address of the end that connected
	Target    string // where it is forwarded to, as configured
	Start     time.Time

	Own  spiffeid.ID // zero before there is an identity
	Peer spiffeid.ID // zero if it is not known
	// PeerClaimed is true if Peer is what an unverified certificate says.
	PeerClaimed bool
	// PeerSubject is the subject of a peer whose certificate is no SVID. It is
	// the peer's text, of any length.
	PeerSubject string
	Rule        string // what allowed the peer

	TLSVersion string // as crypto/tls names it, such as "TLS 1.3"; empty before the handshake is done, as the next five
	Group      string // of the key exchange, such as "X25519MLKEM768"
	Cipher     string // the cipher suite, by its IANA name
	ALPN       string // the protocol agreed on; empty without ALPN
	ServerName string // SNI, sent or received; the peer's text in an inbound tunnel
	Resumed    bool   // the TLS session was resumed

	Handshake time.Duration // of TLS; 0 if there was none, or it was not completed
	Connect   time.Duration // from Start until both ends were up; 0 if they never were
	Stopped   time.Time     // when it ended; set by End

	Forwarded int64 // bytes towards the target
	Returned  int64 // bytes back from it
	Drained   bool  // it ended while the sidecar was shutting down
	Cause     Cause
	Err       error
}

// Connected says that both ends are up from now on.
func (r *Record) Connected() { r.Connect = max(time.Since(r.Start), 1) }

// Established reports whether both ends were up.
func (r *Record) Established() bool { return r.Connect > 0 }

// End sets the cause and the error, if there is one, and the time. The last
// call counts.
func (r *Record) End(c Cause, err error) {
	r.Cause, r.Err, r.Stopped = c, err, time.Now()
}

// Duration is how long the connection lasted, or lasts until now.
func (r *Record) Duration() time.Duration {
	if r.Stopped.IsZero() {
		return time.Since(r.Start)
	}
	return r.Stopped.Sub(r.Start)
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
	case pipe.IdleTimeout:
		r.End(IdleTimeout, res.Err)
	case pipe.CloseTimeout:
		r.End(CloseTimeout, res.Err)
	case pipe.MaxAge:
		r.End(MaxAge, res.Err)
	case pipe.Aborted:
		r.End(Shutdown, res.Err)
	default:
		r.End(Failed, res.Err)
	}
}
