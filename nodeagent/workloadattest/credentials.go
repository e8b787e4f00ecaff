package workloadattest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Caller is the process at the other end of a connection, as long as that is
// open. It is the connection's [credentials.AuthInfo].
type Caller struct {
	credentials.CommonAuthInfo

	proc *process
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
func (c *Caller) PID() int { return c.proc.pid }

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
type Credentials struct {
	log       *slog.Logger
	name      string
	weakOnce  *sync.Once
	peerPIDFD func(socket int) (int, error)
}

// CredentialsOptions say what callers of a socket are told apart by. The zero
// value is usable.
type CredentialsOptions struct {
	// Log may be nil.
	Log *slog.Logger
	// Socket is the name of a per-workload socket; "" is the shared one. Its
	// callers have the selector lanyard:socket:NAME.
	Socket string
	// MaxPerUser is how many connections one user, other than root, may have
	// open; 0 is 4096.
	MaxPerUser int
}

// NewCredentials returns credentials of one socket.
func NewCredentials(opt CredentialsOptions) *Credentials {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Credentials{log: opt.Log, name: opt.Socket, weakOnce: new(sync.Once), peerPIDFD: peerPIDFD}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c *Credentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	caller, err := c.identify(conn)
	if err != nil {
		log := c.log.Warn
		if errors.Is(err, ErrGone) {
			log = c.log.Debug // connected and ended: its own affair
		}
		log("connection refused", "reason", err)
		return nil, nil, errors.Join(err, conn.Close())
	}
	return watch(conn, caller.proc), caller, nil
}

func (c *Credentials) identify(conn net.Conn) (*Caller, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%T is no UNIX socket: its caller cannot be known", conn)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
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
		var weak bool
		caller.proc, weak, pinErr = pin(int(fd), int(cred.Pid), c.peerPIDFD)
		if weak {
			c.weakOnce.Do(func() {
				c.log.Warn("this kernel has no SO_PEERPIDFD (Linux 6.5): callers are pinned by process ID and start time")
			})
		}
	})
	return caller, errors.Join(err, pinErr)
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

// watchedConn is closed when its process ends.
type watchedConn struct {
	net.Conn
	proc    *process
	stop    chan struct{}
	watcher sync.WaitGroup
	once    sync.Once
}

func watch(conn net.Conn, proc *process) *watchedConn {
	c := &watchedConn{Conn: conn, proc: proc, stop: make(chan struct{})}
	c.watcher.Go(func() {
		proc.wait(c.stop)
		// Only the socket: closing the whole waits for this goroutine. gRPC
		// sees the socket end, ends the streams and closes the whole.
		c.Conn.Close()
	})
	return c
}

// Close closes the connection and the pidfd and waits for the watcher.
func (c *watchedConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.stop)
		err = c.Conn.Close()
		if errors.Is(err, net.ErrClosed) {
			err = nil // the watcher was first
		}
		c.proc.close()
		c.watcher.Wait()
	})
	return err
}
