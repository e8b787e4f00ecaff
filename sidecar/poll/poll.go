// Package poll owns the sidecar's sockets and the event loops that wait for them.
// It knows nothing of TLS, and not what the bytes are for.
package poll

import (
	"context"
	"net"
	"time"
)

// Config is what a Poller needs; its zero value is usable.
type Config struct {
	// Loops is how many event loops there are; 0 means one a processor.
	Loops int
}

// Poller is a set of event loops.
type Poller struct{}

// New starts the loops. The error is that of the kernel.
func New(Config) (*Poller, error) { return &Poller{}, nil }

// Close ends the loops, once all that was made with p is closed.
func (p *Poller) Close() error { return nil }

// ListenOptions are for the connections that a Listener accepts.
type ListenOptions struct {
	KeepAlive   net.KeepAliveConfig
	UserTimeout time.Duration // TCP_USER_TIMEOUT; 0 leaves it to the kernel
}

// Listener accepts connections as *Conn.
type Listener struct{ net.Listener }

// Listener takes l over, a *net.TCPListener or *net.UnixListener.
func (p *Poller) Listener(l net.Listener) (*Listener, error) { return &Listener{l}, nil }

// SetOptions sets what connections have that are accepted from now on.
func (l *Listener) SetOptions(ListenOptions) error { return nil }

// DialOptions are for one connection.
type DialOptions struct {
	KeepAlive   net.KeepAliveConfig
	UserTimeout time.Duration // TCP_USER_TIMEOUT; 0 leaves it to the kernel
	// Near is the connection that the new one is to be joined with, if known: both
	// are then in one loop from the beginning. It may be nil.
	Near net.Conn
}

// Dial connects to address. The network is "tcp" or "unix". Names are resolved
// and their addresses tried in turn.
func (p *Poller) Dial(ctx context.Context, network, address string, opt DialOptions) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: opt.KeepAlive}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, address)
}
