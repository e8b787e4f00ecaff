package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

// keepAlive finds peers that vanished without a word: 15 s idle, then a probe
// every 15 s, gone after 9 unanswered ones (150 s).
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9}
}

// socketMode is for sockets whose users act under this sidecar's identity.
const socketMode = 0o600

// listen binds e, which flag named.
func (e endpoint) listen(ctx context.Context, flag string) (net.Listener, error) {
	if e.network == "unix" {
		l, err := unixsock.Listen(e.address, socketMode)
		if err != nil {
			return nil, fmt.Errorf("%s unix:%s: %w", flag, e.address, err)
		}
		return l, nil
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
	// sockmap and some BPF programs refuse MPTCP sockets.
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", e.address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s %s: address already in use: stop what listens there or choose another port", flag, e.address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s %s: permission denied: choose a port from 1024 up or grant CAP_NET_BIND_SERVICE", flag, e.address)
	case err != nil:
		return nil, fmt.Errorf("%s %s: %w", flag, e.address, err)
	}
	return l, nil
}

// dial connects to e.
func (e endpoint) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive()}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, e.network, e.address)
}

// serverName is the host of e if it is a name: SNI has no addresses (RFC 6066,
// section 3).
func (e endpoint) serverName() string {
	host, _, err := net.SplitHostPort(e.address)
	if e.network != "tcp" || err != nil || net.ParseIP(host) != nil {
		return ""
	}
	return host
}
