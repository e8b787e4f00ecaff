// Package docker owns the selectors of containers that Docker, or Podman as
// root, runs: it asks the daemon's Engine API about the container that a process
// is in. It does not find the container (package container), and changes nothing
// at the daemon.
package docker

import (
	"context"
	"errors"
	"log/slog"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// DefaultSocket is where Docker's daemon listens.
const DefaultSocket = "/var/run/docker.sock"

// Config says which daemons to ask. The zero value is usable.
type Config struct {
	// Socket is the path of Docker's socket; "" is [DefaultSocket].
	Socket string
	// PodmanSocket is that of Podman's, run by root; "": Podman is not asked.
	PodmanSocket string
	// Version is the Engine API's, such as 1.41; "": the newest that the daemon
	// has.
	Version string
	// Matchers are patterns of cgroup paths, as SPIRE's
	// container_id_cgroup_matchers; nil: the known layouts.
	Matchers []string
	// Log may be nil.
	Log *slog.Logger
}

// Plugin is the attestor named docker. Its selectors are label:KEY:VALUE,
// env:KEY=VALUE, image_id, image_config_digest and name.
type Plugin struct{ cfg Config }

// New returns the plugin; it does no I/O. The error names what is wrong with cfg.
func New(cfg Config) (*Plugin, error) { return &Plugin{cfg: cfg}, nil }

// Name implements [workloadattest.Plugin].
func (*Plugin) Name() string { return "docker" }

// Attest implements [workloadattest.Plugin].
func (*Plugin) Attest(context.Context, *workloadattest.Process) ([]registration.Selector, error) {
	return nil, errors.New("not built yet")
}
