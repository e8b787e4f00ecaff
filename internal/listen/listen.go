// Package listen owns the TCP listeners that roles have beside their own
// protocol's, such as those of metrics and health: what is wrong with an address
// is said in terms of the configuration. It does not serve.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// TCP binds address, host:port, whose port the configuration names by key.
func TCP(ctx context.Context, key, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // kernel paths that later parts use refuse MPTCP
	l, err := lc.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use: stop the process that uses it, or set another %s", address, key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		host, _, _ := net.SplitHostPort(address)
		return nil, fmt.Errorf("%s is not an address of this machine: set another bind_address", host)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}
