package nodeagent

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"

	"github.com/lanyard-mtls/lanyard/internal/listen"
	"github.com/lanyard-mtls/lanyard/internal/unixsock"
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

// spec is one socket as configured.
type spec struct {
	name     string
	path     string
	mode     fs.FileMode
	uid, gid int
}

func (c Config) specs() []spec {
	specs := []spec{{name: publicSocket, path: c.SocketPath, mode: publicMode, uid: -1, gid: -1}}
	if c.AdminSocketPath != "" {
		mode := fs.FileMode(adminMode)
		if len(c.AuthorizedDelegates) > 0 {
			mode = delegatesMode
		}
		specs = append(specs, spec{name: adminSocket, path: c.AdminSocketPath, mode: mode, uid: -1, gid: -1})
	}
	for _, s := range c.Sockets {
		mode := s.Mode
		if mode == 0 {
			mode = publicMode
		}
		specs = append(specs, spec{name: workloadPrefix + s.Name, path: s.Path, mode: mode, uid: s.UID, gid: s.GID})
	}
	return specs
}

// listeners are the agent's sockets, by name; nil where there is none.
type listeners map[string]net.Listener

func (l listeners) Listener(name string) net.Listener { return l[name] }

// Close closes all of them.
func (l listeners) Close() error {
	for _, one := range l {
		one.Close()
	}
	return nil
}

// listenOn binds all sockets or none.
func listenOn(cfg Config) (listeners, error) {
	set := make(listeners)
	for _, s := range cfg.specs() {
		l, err := unixsock.Listen(s.path, s.mode)
		if err == nil {
			set[s.name] = l
			if s.uid >= 0 || s.gid >= 0 {
				err = os.Chown(s.path, s.uid, s.gid)
			}
		}
		if err != nil {
			return nil, errors.Join(err, set.Close())
		}
	}
	return set, nil
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

func (p *parts) addrs(set listeners, on beside) Addrs {
	a := Addrs{Socket: set.Listener(publicSocket).Addr()}
	if l := set.Listener(adminSocket); l != nil {
		a.AdminSocket = l.Addr()
	}
	if on.metrics != nil {
		a.Metrics = on.metrics.Addr()
	}
	if on.health != nil {
		a.Health = on.health.Addr()
	}
	return a
}
