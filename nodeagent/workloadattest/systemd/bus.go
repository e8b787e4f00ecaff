package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
)

const defaultSocket = "/run/dbus/system_bus_socket"

// bus is the connection to the message bus, once there is one.
type bus struct {
	socket string
	// turn is held by who connects, or looks at conn.
	turn   chan struct{}
	conn   *connection
	closed bool
}

type connection struct {
	*dbus.Conn
	since time.Time
	// noPIDFD says that the service manager is older than version 253, and knows
	// processes by their number alone.
	noPIDFD atomic.Bool
}

func newBus(socket string) *bus {
	if socket == "" {
		socket = socketOf(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"))
	}
	return &bus{socket: socket, turn: make(chan struct{}, 1)}
}

// socketOf returns the first path in an address of a message bus (D-Bus
// specification, "Server Addresses"), the default where there is none.
func socketOf(address string) string {
	for one := range strings.SplitSeq(address, ";") {
		params, ok := strings.CutPrefix(one, "unix:")
		if !ok {
			continue
		}
		for param := range strings.SplitSeq(params, ",") {
			if path, ok := strings.CutPrefix(param, "path="); ok && path != "" {
				return path
			}
		}
	}
	return defaultSocket
}

// connect returns the connection, a new one where there is none that works.
func (b *bus) connect(ctx context.Context) (*connection, error) {
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch {
	case b.closed:
		return nil, net.ErrClosed
	case b.conn != nil && b.conn.Connected():
		return b.conn, nil
	}
	var d net.Dialer
	socket, err := d.DialContext(ctx, "unix", b.socket)
	if err != nil {
		return nil, fmt.Errorf("message bus: %w", err)
	}
	// The library has no deadline of its own for what comes before the first call.
	if end, ok := ctx.Deadline(); ok {
		if err := socket.SetDeadline(end); err != nil {
			return nil, errors.Join(err, socket.Close())
		}
	}
	conn, err := dbus.ConnectUnix(socket.(*net.UnixConn))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("message bus %s: %w", b.socket, err), closed(socket.Close()))
	}
	if err := socket.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	b.conn = &connection{Conn: conn, since: time.Now()}
	return b.conn, nil
}

// closed forgives that something was closed before.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (b *bus) close() error {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	b.closed = true
	if b.conn == nil {
		return nil
	}
	return closed(b.conn.Close())
}
