package sidecar

import (
	"context"
	"errors"
	"net"
	"reflect"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

// tunnel is one that has a listener.
type tunnel struct {
	cfg     Tunnel
	policy  policy.Policy
	handler accept.Handler
	probe   *status.Probe // of the target
	loop    *accept.Loop
	stop    context.CancelFunc // begins its end
	done    chan error         // what the loop returned
}

// source is where one or more tunnels have their identity from.
type source struct {
	identity.Source
	stop func() // ends it and waits; nothing before it runs
}

// plan is a configuration that everything is there for, but nothing uses yet.
type plan struct {
	cfg     Config
	sources map[string]*source
	tunnels map[string]*planned
	// what was made for it, to be given back if it comes to nothing
	listeners []net.Listener
}

// planned is a tunnel of a plan: a new one, or an old one with other settings.
type planned struct {
	cfg      Tunnel
	policy   policy.Policy
	handler  accept.Handler
	probe    *status.Probe
	listener net.Listener // nil: the old one's
}

// prepare reads and binds everything that cfg asks for and is not there yet. If
// something can't be had, nothing has changed. s.mu is held.
func (s *Sidecar) prepare(ctx context.Context, cfg Config) (*plan, error) {
	p := &plan{cfg: cfg, sources: map[string]*source{}, tunnels: map[string]*planned{}}
	var errs []error
	for _, t := range cfg.Tunnels {
		errs = append(errs, setting.In(t.Name, s.prepareTunnel(ctx, p, t)))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, p.undo())
	}
	return p, nil
}

func (p *plan) undo() error {
	var errs []error
	for _, l := range p.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (s *Sidecar) prepareTunnel(ctx context.Context, p *plan, t Tunnel) error {
	src, err := s.prepareSource(ctx, p, t)
	if err != nil {
		return err
	}
	addr, err := listen.Parse("listen", t.Listen)
	if err != nil {
		return err
	}
	old := s.tunnels[addr.Key()]
	next := &planned{cfg: t}
	p.tunnels[addr.Key()] = next
	if old != nil && reflect.DeepEqual(old.cfg, t) && src == s.sources[t.Identity.SourceKey()] {
		next.policy, next.handler, next.probe = old.policy, old.handler, old.probe // sessions may be resumed
		return policy.Reload(ctx, old.policy)
	}
	if next.policy, err = s.preparePolicy(ctx, t); err != nil {
		return err
	}
	if err := s.prepareHandler(ctx, next, src); err != nil {
		return err
	}
	if old != nil {
		return old.cfg.sameSocket(t)
	}
	if next.listener, err = s.bind(ctx, addr, t); err == nil {
		p.listeners = append(p.listeners, next.listener)
	}
	return err
}

// sameSocket returns an error if a listener of t can't serve for next.
func (t Tunnel) sameSocket(next Tunnel) error {
	for key, changed := range map[string]bool{"socket_mode": t.SocketMode != next.SocketMode, "reuse_port": t.ReusePort != next.ReusePort,
		"keep_alive": t.KeepAlive != next.KeepAlive, "user_timeout": t.UserTimeout != next.UserTimeout} {
		if changed {
			return setting.Errorf(key, "", "can't change while %s stays open: change listen too, or restart", t.Listen)
		}
	}
	return nil
}

func (s *Sidecar) prepareSource(ctx context.Context, p *plan, t Tunnel) (*source, error) {
	key := t.Identity.SourceKey()
	if src := p.sources[key]; src != nil {
		return src, nil
	}
	if src := s.sources[key]; src != nil {
		p.sources[key] = src
		return src, nil
	}
	deps := s.cfg.Deps.Identity
	deps.Log = s.log
	from, err := identity.New(t.Identity, deps)
	if err != nil {
		return nil, err
	}
	if err := from.Load(ctx); err != nil {
		return nil, err
	}
	src := &source{Source: from, stop: func() {}}
	p.sources[key] = src
	return src, nil
}

func (s *Sidecar) preparePolicy(ctx context.Context, t Tunnel) (policy.Policy, error) {
	rules, err := policy.Compile(t.Policy, s.cfg.Deps.Policy)
	if err != nil {
		return nil, err
	}
	return rules, policy.Reload(ctx, rules)
}

func (s *Sidecar) bind(ctx context.Context, addr listen.Address, t Tunnel) (net.Listener, error) {
	l, err := listen.Listen(ctx, addr, listen.Options{Key: "listen", SocketMode: t.SocketMode, ReusePort: t.ReusePort,
		KeepAlive: t.KeepAlive, UserTimeout: t.UserTimeout, Inherited: s.inherited})
	if err != nil {
		return nil, err
	}
	polled, err := s.poller.Listener(l)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return polled, nil
}
