package nodeagent

import (
	"context"
	"io/fs"
	"net"

	"github.com/lanyard-mtls/lanyard/internal/listen"
	"github.com/lanyard-mtls/lanyard/nodeagent/sockets"
)

const (
	publicMode = 0o777 // callers are told apart by who they are, not by the file
	adminMode  = 0o600
	// delegatesMode lets those in who are told apart by their identity; the
	// agent's group is who may try.
	delegatesMode = 0o660
)

// Names of the sockets that every agent has; those of workloads begin otherwise.
const (
	publicSocket = "workload"
	adminSocket  = "admin"
	// workloadPrefix and the configured name are the name of a workload's socket.
	workloadPrefix = "workload-"
)

// specs are all sockets.
func (c Config) specs() []sockets.Spec {
	specs := []sockets.Spec{{Name: publicSocket, Path: c.SocketPath, Mode: publicMode, UID: -1, GID: -1}}
	if c.AdminSocketPath != "" {
		mode := fs.FileMode(adminMode)
		if len(c.AuthorizedDelegates) > 0 {
			mode = delegatesMode
		}
		specs = append(specs, sockets.Spec{Name: adminSocket, Path: c.AdminSocketPath, Mode: mode, UID: -1, GID: -1})
	}
	for _, s := range c.Sockets {
		mode := s.Mode
		if mode == 0 {
			mode = publicMode
		}
		specs = append(specs, sockets.Spec{Name: workloadPrefix + s.Name, Path: s.Path, Mode: mode, UID: s.UID, GID: s.GID})
	}
	return specs
}

// beside are the TCP listeners; nil where none is configured.
type beside struct{ metrics, health net.Listener }

func (p *parts) listenBeside(ctx context.Context) (on beside, err error) {
	if prometheus := p.cfg.Metrics.Prometheus; prometheus != nil {
		if on.metrics, err = listen.TCP(ctx, "port in telemetry.Prometheus", prometheus.ListenAddress()); err != nil {
			return beside{}, err
		}
	}
	if p.cfg.Health.Enabled {
		if on.health, err = listen.TCP(ctx, "bind_port in health_checks", p.cfg.Health.ListenAddress()); err != nil {
			if on.metrics != nil {
				on.metrics.Close()
			}
			return beside{}, err
		}
	}
	return on, nil
}

func (p *parts) addrs(s *servers, on beside) Addrs {
	var a Addrs
	for _, e := range s.endpoints {
		switch e.name {
		case publicSocket:
			a.Socket = e.listener.Addr()
		case adminSocket:
			a.AdminSocket = e.listener.Addr()
		}
	}
	if on.metrics != nil {
		a.Metrics = on.metrics.Addr()
	}
	if on.health != nil {
		a.Health = on.health.Addr()
	}
	return a
}
