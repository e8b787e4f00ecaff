// Package docker owns the selectors of containers that Docker, or Podman as
// root, runs: it asks the daemon's Engine API about the container that a process
// is in. It does not find the container (package container), and changes nothing
// at the daemon.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/container"
)

// Where the daemons listen by default.
const (
	DefaultSocket       = "/var/run/docker.sock"
	DefaultPodmanSocket = "/run/podman/podman.sock"
)

const (
	name = "docker"
	// maxCgroup bounds what is read of /proc/PID/cgroup, in bytes.
	maxCgroup = 128 << 10
	// parallel is how many containers the daemons are asked about at once.
	parallel = 4
)

// Config says which daemons to ask. The zero value is usable.
type Config struct {
	// Socket is the path of Docker's socket; "" is [DefaultSocket].
	Socket string
	// PodmanSocket is that of Podman, run by root; "" is [DefaultPodmanSocket].
	// Containers that users run have no selectors: their user could claim any.
	PodmanSocket string
	// Version is the Engine API's to ask for, such as 1.41; "": the daemon's own.
	Version string
	// Matchers are patterns of cgroup paths ([container.NewFinder]); nil: the
	// layouts that runtimes are known to make.
	Matchers []string
	// Log may be nil.
	Log *slog.Logger
}

// Plugin is the attestor named docker. Its selectors are, as SPIRE's,
// label:KEY:VALUE, env:KEY=VALUE, image_id:NAME (as the container was started
// with), and image_config_digest:sha256:HEX (of the image that it was made from,
// whatever the name stands for by now); and name:NAME, which the container had
// when the agent first saw it.
//
// The daemon is asked once in a container's life. While it is away, containers
// seen before keep their selectors; for others Attest fails.
type Plugin struct {
	finder         *container.Finder
	docker, podman *daemon
	log            *slog.Logger
	known          *cache
	slots          chan struct{}

	mu   sync.Mutex
	told map[string]bool
}

// New returns the plugin; it does no I/O. The error says what is wrong with cfg.
func New(cfg Config) (*Plugin, error) {
	finder, err := container.NewFinder(cfg.Matchers)
	if err != nil {
		return nil, err
	}
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if cfg.PodmanSocket == "" {
		cfg.PodmanSocket = DefaultPodmanSocket
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	docker, dockerErr := newDaemon("docker", cfg.Socket, cfg.Version)
	podman, podmanErr := newDaemon("podman", cfg.PodmanSocket, cfg.Version)
	if err := errors.Join(dockerErr, podmanErr); err != nil {
		return nil, err
	}
	return &Plugin{
		finder: finder, docker: docker, podman: podman, log: cfg.Log,
		known: newCache(), slots: make(chan struct{}, parallel), told: make(map[string]bool),
	}, nil
}

// Name implements [workloadattest.Plugin].
func (*Plugin) Name() string { return name }

// Attest implements [workloadattest.Plugin].
func (p *Plugin) Attest(ctx context.Context, proc *workloadattest.Process) ([]registration.Selector, error) {
	cgroup, err := proc.ReadFile("cgroup", maxCgroup)
	if err != nil {
		return nil, err
	}
	c, ok, err := p.finder.Find(cgroup)
	if err != nil || !ok {
		return nil, err
	}
	d := p.daemonOf(c)
	if d == nil {
		return nil, nil
	}
	rec := p.known.record(c.ID)
	if err := rec.lock(ctx); err != nil {
		return nil, err
	}
	defer rec.unlock()
	if sel, ok, err := rec.answer(c, proc, time.Now()); ok {
		return sel, err
	}
	info, err := p.started(ctx, d, c.ID)
	if errors.Is(err, errUnknown) {
		rec.learnUnknown(time.Now())
		p.explainUnknown(d, c)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return rec.learn(c, proc, info)
}

// daemonOf returns whom to ask about c; nil: it is Kubernetes' own runtime's.
func (p *Plugin) daemonOf(c container.Container) *daemon {
	switch {
	case strings.HasPrefix(c.Runtime, "libpod"), strings.Contains(c.Path, "/libpod/"):
		return p.podman
	case c.Runtime == "crio", c.Runtime == "cri-containerd":
		return nil
	default:
		return p.docker
	}
}

// started returns what d says of a container once it says that it runs: a process
// can be there sooner than its daemon has noted it.
func (p *Plugin) started(ctx context.Context, d *daemon, id string) (inspected, error) {
	for try := time.Duration(1); ; try++ {
		info, err := p.inspect(ctx, d, id)
		if err != nil || info.State.Running && info.State.Pid > 0 {
			return info, err
		}
		if try == 5 {
			return info, fmt.Errorf("%s says that container %.12s does not run, and a process has its cgroup", d.name, id)
		}
		wait := time.NewTimer(try * 50 * time.Millisecond)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return info, ctx.Err()
		}
	}
}

// inspect asks d, with a few others at most.
func (p *Plugin) inspect(ctx context.Context, d *daemon, id string) (inspected, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return inspected{}, ctx.Err()
	}
	return d.inspect(ctx, id)
}

// explainUnknown tells once why a user's container has no selectors.
func (p *Plugin) explainUnknown(d *daemon, c container.Container) {
	user, rest, found := strings.Cut(c.Path, "/user@")
	if !found {
		p.log.Debug("container is not the daemon's", "daemon", d.name, "container", c.ID)
		return
	}
	uid, _, _ := strings.Cut(rest, ".service")
	p.mu.Lock()
	first := !p.told[uid] && len(p.told) < 1000
	if first {
		p.told[uid] = true
	}
	p.mu.Unlock()
	if first {
		p.log.Warn("no docker selectors for containers that a user runs: their user could claim any label", "uid", uid, "cgroup", user+"/user@"+rest)
	}
}

// selectors are what an entry may ask for of a container.
func (i inspected) selectors() []registration.Selector {
	var sel []registration.Selector
	add := func(kind, value string) {
		if value != "" {
			sel = append(sel, registration.Selector{Type: name, Value: kind + ":" + value})
		}
	}
	for key, value := range i.Config.Labels {
		add("label", fmt.Sprintf("%s:%s", key, value))
	}
	for _, env := range i.Config.Env {
		add("env", env)
	}
	add("image_id", i.Config.Image)
	add("image_config_digest", i.digest())
	add("name", strings.TrimPrefix(i.Name, "/"))
	return registration.SortSelectors(sel)
}

// digest returns the ID of the container's image. Podman leaves out the algorithm.
func (i inspected) digest() string {
	if i.Image == "" || strings.Contains(i.Image, ":") {
		return i.Image
	}
	return "sha256:" + i.Image
}
