package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// ErrNotRunning says that there is nothing to reload.
var ErrNotRunning = errors.New("the sidecar is not running")

// Reload makes the sidecar do what cfg says, all of it or, with an error,
// nothing. Listeners whose address stays keep their socket, and all connections
// go on under the settings that they began with. Tunnels that are gone finish
// their connections, for cfg.ShutdownTimeout at most. Certificates, bundles and
// policies are read again; of those, each is taken over by itself.
//
// Of cfg, what belongs to the process stays as it was at the start: Deps, Log,
// Notify, Ready, Revision and Sandbox.
func (s *Sidecar) Reload(ctx context.Context, cfg Config) error {
	if s.view.Load() == nil {
		return ErrNotRunning
	}
	// Names may take seconds to resolve: who wants to look or to stop waits for no lock meanwhile.
	cfg, err := s.checked(ctx, cfg)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil || s.running.Err() != nil {
		return ErrNotRunning
	}
	s.status.Reloading()
	if err == nil {
		err = s.apply(ctx, cfg)
	}
	return s.reloaded(err)
}

// checked returns cfg as it would be used, or all that is wrong with it.
func (s *Sidecar) checked(ctx context.Context, cfg Config) (Config, error) {
	if err := cfg.Validate(); err != nil {
		return cfg, err
	}
	cfg = cfg.withDefaults()
	var has []Tunnel
	if v := s.view.Load(); v != nil {
		for _, t := range v.tunnels {
			has = append(has, t.cfg)
		}
	}
	return cfg, cfg.resolveTargets(ctx, has)
}

// ReloadFailed tells that a configuration could not even be read: all goes on as
// it was.
func (s *Sidecar) ReloadFailed(err error) {
	s.status.Reloading()
	_ = s.reloaded(err)
}

// reloaded tells how a reload ended.
func (s *Sidecar) reloaded(err error) error {
	s.metrics.Reloaded(err)
	s.status.Reloaded(err)
	return err
}

// apply is Reload with a configuration that is valid; s.mu is held.
func (s *Sidecar) apply(ctx context.Context, cfg Config) error {
	cfg.Deps, cfg.Log, cfg.Notify, cfg.Ready, cfg.Revision, cfg.Sandbox = s.cfg.Deps, s.cfg.Log, s.cfg.Notify, s.cfg.Ready, s.cfg.Revision, s.cfg.Sandbox
	if err := s.fixed(cfg); err != nil {
		return err
	}
	next, err := s.prepare(ctx, cfg)
	if err != nil {
		return err
	}
	// What stays may have new content. If it can't be read, the old is still good.
	for key, src := range next.sources {
		if s.sources[key] == src {
			err = errors.Join(err, src.Reload(ctx))
		}
	}
	if err != nil {
		return errors.Join(err, s.undo(ctx, next))
	}
	s.commit(next)
	return nil
}

// ReloadFiles reads certificates, bundles and policies again. Of each that can't
// be read, the one before stays in use; the error tells all of them.
func (s *Sidecar) ReloadFiles(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil || s.running.Err() != nil {
		return ErrNotRunning
	}
	s.status.Reloading()
	var errs []error
	for _, src := range s.sources {
		errs = append(errs, src.Reload(ctx))
	}
	for _, t := range s.tunnels {
		errs = append(errs, policy.Reload(ctx, t.policy))
	}
	return s.reloaded(errors.Join(errs...))
}

// fixed returns an error about what can't change while the sidecar runs.
func (s *Sidecar) fixed(cfg Config) error {
	var errs []error
	if cfg.Status != s.cfg.Status {
		errs = append(errs, setting.Errorf("status", cfg.Status.Listen, "can't change while running: restart"))
	} else if s.https && !cfg.hasCertificate() {
		errs = append(errs, setting.Errorf("status", cfg.Status.Listen, "is served over HTTPS, and no tunnel would have a certificate to show any more: restart"))
	}
	if was, is := s.cfg.Metrics, cfg.Metrics; was.Prefix != is.Prefix || was.Graphite != is.Graphite || was.URL != is.URL || was.Interval != is.Interval {
		errs = append(errs, setting.Errorf("metrics", "", "can't change while running: restart"))
	}
	return errors.Join(append(errs, s.beyondSandbox(cfg))...)
}

// commit puts a plan into use. Nothing in it can fail. s.mu is held.
func (s *Sidecar) commit(p *plan) {
	for key, src := range p.sources {
		if s.sources[key] != src {
			src.run(s.support, func() { s.giveUp(src) })
		}
	}
	gone := s.tunnels
	s.tunnels = map[string]*tunnel{}
	for key, next := range p.tunnels {
		t := gone[key]
		if t == nil {
			t = &tunnel{loop: &accept.Loop{Listener: next.listener, Log: s.log}, done: make(chan error, 1)}
		}
		delete(gone, key)
		t.cfg, t.policy, t.handler, t.probe = next.cfg, next.policy, next.handler, next.probe
		t.loop.Set(s.settings(p.cfg, t))
		s.tunnels[key] = t
		if next.listener != nil {
			s.start(t)
		}
	}
	for _, t := range gone {
		s.retire(p.cfg, t)
	}
	s.metrics.Retain(p.cfg.has)
	for key, src := range s.sources {
		if p.sources[key] != src {
			src.stop(s.support)
		}
	}
	s.sources, s.cfg = p.sources, p.cfg
	s.show()
}

// settings are those of t, whose configuration is one of cfg's.
func (s *Sidecar) settings(cfg Config, t *tunnel) *accept.Settings {
	c := t.cfg
	direction := c.Mode.Direction()
	return &accept.Settings{Handler: t.handler, Tunnel: c.Name, Direction: direction, Target: c.Target,
		Metrics: s.metrics.Tunnel(c.Name, direction), Quiet: cfg.Quiet, ConnectTimeout: c.ConnectTimeout, IdleTimeout: c.IdleTimeout,
		CloseTimeout: max(c.CloseTimeout, 0), CloseAtOnce: c.CloseTimeout < 0, MaxAge: c.MaxAge, Limits: c.Limits,
		ShutdownTimeout: cfg.ShutdownTimeout, DrainIdle: max(cfg.DrainIdle, 0)}
}

// start begins to accept for t.
func (s *Sidecar) start(t *tunnel) {
	ctx, stop := context.WithCancel(s.running)
	t.stop = stop
	addr := t.loop.Listener.Addr().String()
	log := s.log
	if t.cfg.Name != "" {
		log = log.With("tunnel", t.cfg.Name)
	}
	log.Info("listening", "mode", string(t.cfg.Mode), "address", addr, "target", t.cfg.Target)
	go func() {
		err := t.loop.Run(ctx)
		if ctx.Err() == nil {
			s.fail(fmt.Errorf("listener %s: %w", addr, err))
		}
		t.done <- err
	}()
}

// retire ends a tunnel that cfg does not have any more.
func (s *Sidecar) retire(cfg Config, t *tunnel) {
	s.log.Info("tunnel removed", "tunnel", t.cfg.Name, "connections", t.loop.Open())
	t.loop.Set(s.settings(cfg, t)) // it drains for as long as cfg says
	t.stop()
	// Not only soon: the next configuration may have its address again. That it is
	// closed by now, or being closed, is no matter.
	_ = t.loop.Listener.Close()
	s.draining.Go(func() {
		if err := <-t.done; err != nil {
			s.log.Warn("tunnel removed", "tunnel", t.cfg.Name, "error", err)
		}
	})
}

// fail ends the sidecar for a reason of its own.
func (s *Sidecar) fail(err error) {
	select {
	case s.failures <- err:
	default: // it is ending already
	}
}

// has reports whether a tunnel of that name and direction is configured.
func (c Config) has(name string, d record.Direction) bool {
	return slices.ContainsFunc(c.Tunnels, func(t Tunnel) bool { return t.Name == name && t.Mode.Direction() == d })
}
