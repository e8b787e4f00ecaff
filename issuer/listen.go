package issuer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/internal/listen"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/unixsock"
	"github.com/lanyard-mtls/lanyard/issuer/oidc"
)

// listeners are bound: connections queue up on them.
type listeners struct {
	tcp, local net.Listener
	// Those that are not configured are nil.
	metrics, health net.Listener
	oidc            *oidc.Server
}

// bind binds all listeners or none. keys are served by OIDC, once it runs.
func bind(ctx context.Context, cfg Config, keys func() []*types.JWTKey) (_ *listeners, err error) {
	on := &listeners{}
	defer func() {
		if err != nil {
			on.close()
		}
	}()
	if on.tcp, err = listen.TCP(ctx, "bind_port", cfg.address()); err != nil {
		return nil, err
	}
	if on.local, err = listenLocal(cfg.SocketPath); err != nil {
		return nil, err
	}
	if prometheus := cfg.Metrics.Prometheus; prometheus != nil {
		if on.metrics, err = listen.TCP(ctx, "port in telemetry.Prometheus", prometheus.ListenAddress()); err != nil {
			return nil, err
		}
	}
	if cfg.Health.Enabled {
		if on.health, err = listen.TCP(ctx, "bind_port in health_checks", cfg.Health.ListenAddress()); err != nil {
			return nil, err
		}
	}
	if cfg.OIDC == nil {
		return on, nil
	}
	oidcConfig := *cfg.OIDC
	oidcConfig.Keys, oidcConfig.Log = keys, cfg.Log
	if on.oidc, err = oidc.New(oidcConfig); err != nil {
		return nil, fmt.Errorf("oidc: %w", err)
	}
	if err := on.oidc.Listen(ctx); err != nil {
		return nil, fmt.Errorf("oidc: %w", err)
	}
	return on, nil
}

// close closes what is bound. Its errors say nothing that anyone could mend.
func (on *listeners) close() {
	for _, l := range []net.Listener{on.tcp, on.local, on.metrics, on.health} {
		if l != nil {
			l.Close()
		}
	}
	if on.oidc != nil {
		on.oidc.Close()
	}
}

func (on *listeners) addrs(cfg Config) Addrs {
	addrs := Addrs{TCP: on.tcp.Addr(), Socket: cfg.SocketPath}
	if on.metrics != nil {
		addrs.Metrics = on.metrics.Addr()
	}
	if on.health != nil {
		addrs.Health = on.health.Addr()
	}
	if on.oidc != nil {
		addrs.OIDC = on.oidc.Addr()
	}
	return addrs
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
