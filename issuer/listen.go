package issuer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

// listeners are bound: connections queue up on them.
type listeners struct {
	tcp, local net.Listener
	// Those that are not configured are nil.
	metrics, health net.Listener
}

// listen binds all listeners or none.
func listen(ctx context.Context, cfg Config) (_ *listeners, err error) {
	on := &listeners{}
	defer func() {
		if err != nil {
			on.close()
		}
	}()
	if on.tcp, err = listenTCP(ctx, "bind_port", cfg.address()); err != nil {
		return nil, err
	}
	if on.local, err = listenLocal(cfg.SocketPath); err != nil {
		return nil, err
	}
	return on, nil
}

func (on *listeners) close() {
	for _, l := range []net.Listener{on.tcp, on.local, on.metrics, on.health} {
		if l != nil {
			l.Close()
		}
	}
}

func (on *listeners) addrs(cfg Config) Addrs {
	return Addrs{TCP: on.tcp.Addr(), Socket: cfg.SocketPath}
}

// listenTCP binds address, whose port the configuration names by key.
func listenTCP(ctx context.Context, key, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // kernel paths that later parts use refuse MPTCP
	l, err := lc.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use by another process: stop that process or set another %s", address, key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		host, _, _ := net.SplitHostPort(address)
		return nil, fmt.Errorf("%s is not an address of this machine: set another bind_address", host)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// listenLocal binds the admin socket for this user alone. A directory that is
// missing is made as private as the socket; one that is there is its owner's.
func listenLocal(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := durable.MkdirPrivate(dir); err != nil {
			return nil, fmt.Errorf("directory of the admin socket: %w", err)
		}
	}
	return unixsock.Listen(path, 0o600)
}
