package listen

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"time"
)

// Options are how Listen makes a socket.
type Options struct {
	// Key is the setting that the address comes from, for errors.
	Key string
	// SocketMode is the mode of a UNIX socket's file; 0 is 0600.
	SocketMode fs.FileMode
	// ReusePort lets other processes of this user listen on the same TCP port, and the kernel share connections out.
	ReusePort bool
	// KeepAlive and UserTimeout (TCP_USER_TIMEOUT; 0 leaves the kernel's) are set on a TCP listener; what it accepts inherits them.
	KeepAlive   net.KeepAliveConfig
	UserTimeout time.Duration
	// Inherited are the sockets that systemd: addresses name; nil if there are none.
	Inherited *Inherited
}

// Inherited are the sockets that systemd handed to this process (sd_listen_fds(3)). It is safe for concurrent use.
type Inherited struct{}

// TakeInherited takes what the environment names, once and for all: the variables are unset, so that no child is misled by them.
func TakeInherited() (*Inherited, error) { return &Inherited{}, nil }

// Close closes the sockets of in. Listeners made from them stay.
func (in *Inherited) Close() error { return nil }

// Listen waits on a: a *net.TCPListener or a *net.UnixListener. Its errors are *setting.Error.
func Listen(ctx context.Context, a Address, opt Options) (net.Listener, error) {
	return nil, errors.New("not there yet")
}
