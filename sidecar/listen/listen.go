package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// Options are how Listen makes a socket.
type Options struct {
	// Key is the setting that the address comes from, for errors.
	Key string
	// SocketMode is the mode of a UNIX socket's file; 0 is DefaultSocketMode.
	SocketMode fs.FileMode
	// ReusePort lets other processes of this user listen on the same TCP port, and the kernel share connections out. What waits in
	// the queue of one that ends is reset.
	ReusePort bool
	// KeepAlive and UserTimeout (TCP_USER_TIMEOUT; 0 leaves the kernel's) are set on a TCP listener; what it accepts inherits them.
	KeepAlive   net.KeepAliveConfig
	UserTimeout time.Duration
	// Inherited are the sockets that systemd: addresses name; nil if there are none.
	Inherited *Inherited
}

// DefaultSocketMode is for sockets whose users act under the sidecar's identity.
const DefaultSocketMode fs.FileMode = 0o600

// Listen waits on a and returns a *net.TCPListener or a *net.UnixListener. A host name is resolved until ctx ends, and its first
// address used, IPv4 before IPv6; no host is all addresses of both. Closing the listener of a UNIX address removes the file; one from
// systemd stays. Its errors are *setting.Error.
func Listen(ctx context.Context, a Address, opt Options) (net.Listener, error) {
	if err := a.CheckListenable(opt.Key); err != nil {
		return nil, err
	}
	var l net.Listener
	var err error
	switch a.Network {
	case TCP:
		l, err = listenTCP(ctx, a, opt)
	case UNIX:
		l, err = listenUNIX(a, opt)
	case Systemd:
		l, err = opt.Inherited.listen(a.Address, opt)
	default:
		err = errors.New("is missing: give " + forms)
	}
	if err != nil {
		return nil, setting.Errorf(opt.Key, a.String(), "%w", err)
	}
	return l, nil
}

func listenTCP(ctx context.Context, a Address, opt Options) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAliveConfig: opt.KeepAlive,
		Control: func(_, _ string, raw syscall.RawConn) error {
			return control(raw, func(fd int) error { return opt.setTCP(fd) })
		},
	}
	// sockmap and some BPF programs refuse MPTCP sockets.
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, TCP, a.Address)
	if err == nil {
		return l, nil
	}
	var dns *net.DNSError
	var addr *net.AddrError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("already in use%s: stop it or choose another port%w", holder(bound(err)), hidden{err})
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("permission denied: choose a port from 1024 up or grant CAP_NET_BIND_SERVICE%w", hidden{err})
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("no interface of this machine has that address: choose one that `ip addr` shows, or :PORT for all%w", hidden{err})
	case errors.As(err, &dns):
		return nil, fmt.Errorf("%s: give an address or a name that resolves%w", oneLine(dns), hidden{err})
	case errors.As(err, &addr):
		return nil, fmt.Errorf("%s: give %s%w", addr.Err, forms, hidden{err})
	}
	return nil, unwrapOp(err)
}

func listenUNIX(a Address, opt Options) (net.Listener, error) {
	mode := opt.SocketMode
	if mode == 0 {
		mode = DefaultSocketMode
	}
	l, err := unixsock.Listen(a.Address, mode)
	if err != nil {
		return nil, err // not l: a nil *net.UnixListener is no nil net.Listener
	}
	return l, nil
}

// setTCP sets what accepted sockets inherit.
func (opt Options) setTCP(fd int) error {
	var errs []error
	set := func(level, name, value int) {
		if err := unix.SetsockoptInt(fd, level, name, value); err != nil {
			errs = append(errs, fmt.Errorf("setsockopt %d, %d: %w", level, name, err))
		}
	}
	if opt.ReusePort {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if opt.UserTimeout > 0 {
		set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(opt.UserTimeout.Milliseconds()))
	}
	if k := opt.KeepAlive; k.Enable {
		set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		set(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(k.Idle))
		set(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(k.Interval))
		set(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, cmpZero(k.Count, 9))
	}
	return errors.Join(errs...)
}

// seconds rounds d up; 0 is 15 s, as net.KeepAliveConfig has it.
func seconds(d time.Duration) int {
	return int((cmpZero(d, 15*time.Second) + time.Second - 1) / time.Second)
}

func cmpZero[T time.Duration | int](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

func control(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if ctlErr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

// hidden is an error that is wrapped, and not printed.
type hidden struct{ error }

func (hidden) Error() string   { return "" }
func (h hidden) Unwrap() error { return h.error }

// unwrapOp drops net's "listen tcp ADDRESS:" from an error that is printed behind the address.
func unwrapOp(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// bound returns the address that err says could not be bound, nil if it doesn't.
func bound(err error) *net.TCPAddr {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok {
		return nil
	}
	addr, _ := op.Addr.(*net.TCPAddr)
	return addr
}

// oneLine is err without the resolver's address in it.
func oneLine(err *net.DNSError) string {
	return strings.ReplaceAll("lookup "+err.Name+": "+err.Err, "\n", " ")
}
