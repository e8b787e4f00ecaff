package workloadattest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Caller is the process at the other end of a connection, as long as that is
// open. It is the connection's [credentials.AuthInfo].
type Caller struct {
	credentials.CommonAuthInfo

	pin *pin
	// Of the moment it connected (SO_PEERCRED).
	uid, gid uint32
	socket   net.Conn
	name     string
}

// Socket returns the name of the per-workload socket that c called on; "" is the
// shared one.
func (c *Caller) Socket() string { return c.name }

// AuthType implements [credentials.AuthInfo].
func (*Caller) AuthType() string { return "pidfd" }

// PID returns the caller's process ID in this process's PID namespace.
func (c *Caller) PID() int { return c.pin.pid }

// UID returns the effective user ID that the caller connected with.
func (c *Caller) UID() uint32 { return c.uid }

// FromContext returns the caller of the RPC that ctx belongs to.
func FromContext(ctx context.Context) (*Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errors.New("not called over a connection")
	}
	c, ok := p.AuthInfo.(*Caller)
	if !ok {
		return nil, fmt.Errorf("called over a connection without caller (%T)", p.AuthInfo)
	}
	return c, nil
}

// Credentials are server-side gRPC transport credentials of a UNIX socket. They
// make each connection's AuthInfo a [*Caller], and close the connection, and so
// its streams, when that process ends. There is no client side.
//
// The caller is the process that connected. Whoever else has the socket, a child
// that inherited it or a process that was sent it, speaks as that one, for as
// long as that one lives.
type Credentials struct {
	log     *slog.Logger
	name    string
	kernel  kernel
	ownProc func() error
	*shared
}

// shared is what clones of credentials have in common.
type shared struct {
	limits  *limits
	watcher *watcher
	weak    sync.Once

	mu  sync.Mutex
	own bool // /proc was found to be of this PID namespace
}

// CredentialsOptions say what callers of a socket are told apart by. The zero
// value is usable.
type CredentialsOptions struct {
	// Log may be nil.
	Log *slog.Logger
	// Socket is the name of a per-workload socket; "" is the shared one. Its
	// callers have the selector lanyard:socket:NAME.
	Socket string
	// Limits are the agent's; nil: this socket has some of its own.
	Limits *Limits
}

// NewCredentials returns credentials of one socket.
func NewCredentials(opt CredentialsOptions) *Credentials {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Limits == nil {
		opt.Limits = NewLimits(opt.Log)
	}
	return &Credentials{
		log: opt.Log, name: opt.Socket, kernel: theKernel(), ownProc: ownProc,
		shared: &shared{limits: opt.Limits.limits, watcher: newWatcher()},
	}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c *Credentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	caller, raw, err := c.identify(conn)
	if err == nil {
		watched := &watchedConn{
			Conn: conn, reader: newReader(raw), pin: caller.pin, watcher: c.watcher,
			closed: func() { c.limits.release(caller.uid) },
		}
		if err = c.watcher.add(watched); err == nil {
			return watched, caller, nil
		}
		caller.pin.close()
		c.limits.release(caller.uid)
	}
	c.tell(err)
	return nil, nil, errors.Join(err, conn.Close())
}

// tell logs why a connection is refused: seldom, as anyone can make many.
func (c *Credentials) tell(err error) {
	if errors.Is(err, ErrGone) {
		c.log.Debug("connection refused", "reason", err) // connected and ended: its own affair
		return
	}
	key := "connection"
	if full, ok := errors.AsType[*limitError](err); ok {
		key = strconv.FormatUint(uint64(full.uid), 10)
	}
	if c.limits.seldom(key) {
		c.log.Warn("connection refused", "reason", err)
	}
}

// identify pins the peer and counts its connection in.
func (c *Credentials) identify(conn net.Conn) (*Caller, syscall.RawConn, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("%T is no UNIX socket: its caller cannot be known", conn)
	}
	if err := c.procIsOwn(); err != nil {
		return nil, nil, err
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	caller := &Caller{socket: conn, name: c.name, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	var pinErr error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, pinErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); pinErr != nil {
			return
		}
		if cred.Pid <= 0 {
			pinErr = errors.New("the caller has no process ID in this PID namespace: let the agent run in the host's")
			return
		}
		caller.uid, caller.gid = cred.Uid, cred.Gid
		if pinErr = c.limits.acquire(cred.Uid); pinErr != nil {
			return
		}
		if caller.pin, pinErr = c.pin(int(fd), int(cred.Pid)); pinErr != nil {
			c.limits.release(cred.Uid)
		}
	})
	return caller, raw, errors.Join(err, pinErr)
}

func (c *Credentials) pin(socket, pid int) (*pin, error) {
	p, weak, err := c.kernel.pinPeer(socket, pid)
	if weak {
		c.weak.Do(func() {
			c.log.Warn("this kernel has no SO_PEERPIDFD (Linux 6.5): callers are pinned by the process ID that they connected with, once they are accepted")
		})
	}
	return p, err
}

// procIsOwn looks once, unless it fails.
func (c *Credentials) procIsOwn() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own {
		return nil
	}
	err := c.ownProc()
	c.own = err == nil
	return err
}

// ClientHandshake implements [credentials.TransportCredentials]; it always fails.
func (*Credentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

// Info implements [credentials.TransportCredentials].
func (*Credentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "pidfd"}
}

// Clone implements [credentials.TransportCredentials].
func (c *Credentials) Clone() credentials.TransportCredentials {
	clone := *c
	return &clone
}

// OverrideServerName implements [credentials.TransportCredentials]; it does nothing.
func (*Credentials) OverrideServerName(string) error { return nil }
