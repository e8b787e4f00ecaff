package record

import "strings"

// Cause is how a connection ended. The values are stable: people search for them.
type Cause string

// The causes, in the order of a connection's life.
const (
	Limited          Cause = "refused: limit"    // the error names the limit
	ProxyHeader      Cause = "bad PROXY header"  // from a balancer that has to send one
	NoIdentity       Cause = "no identity yet"   // none came within the connect timeout
	Expired          Cause = "identity expired"  // the own one, and no other came
	HandshakeTimeout Cause = "handshake timeout" // not done within the connect timeout
	HandshakeFailed  Cause = "handshake failed"
	Refused          Cause = "refused"         // by this end's rules
	RefusedByPeer    Cause = "refused by peer" // by an alert
	DialTimeout      Cause = "dial timeout"
	DialFailed       Cause = "dial failed"
	Closed           Cause = "closed"        // by both ends, in order
	Reset            Cause = "reset"         // by one end
	Truncated        Cause = "truncated"     // by a TLS peer that sent no close_notify
	TimedOut         Cause = "timed out"     // an end stopped answering the kernel
	IdleTimeout      Cause = "idle timeout"  // no byte moved for so long
	CloseTimeout     Cause = "close timeout" // one end was done, the other went silent
	MaxAge           Cause = "max age"       // it was open for as long as is allowed
	Failed           Cause = "failed"
	Shutdown         Cause = "shutdown" // cut off when draining took too long
)

// Reason is the cause as a metric's label: in snake case, without punctuation.
func (c Cause) Reason() string {
	return strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(string(c), ":", ""), " ", "_"))
}

// expected reports whether the connection ended as its ends or the
// configuration meant it to.
func (c Cause) expected() bool {
	switch c {
	case Closed, Reset, IdleTimeout, MaxAge:
		return true
	}
	return false
}

// handshake reports whether it ended between this end and its TLS peer, before
// either let the other in.
func (c Cause) handshake() bool {
	switch c {
	case NoIdentity, Expired, HandshakeTimeout, HandshakeFailed, Refused, RefusedByPeer:
		return true
	}
	return false
}
