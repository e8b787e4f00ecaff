package sidecar

import (
	"context"
	"errors"
	"fmt"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// ErrNotRunning says that there is nothing to reload.
var ErrNotRunning = errors.New("the sidecar is not running")

// Reload makes the sidecar do what cfg says, all of it or, with an error,
// nothing. Listeners whose address stays keep their socket, and all connections
// go on under the settings that they began with. Tunnels that are gone finish
// their connections, for cfg.ShutdownTimeout at most. Certificates, bundles and
// policies are read again.
func (s *Sidecar) Reload(ctx context.Context, cfg Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil || s.running.Err() != nil {
		return ErrNotRunning
	}
	s.status.Reloading()
	return s.reloaded(s.apply(ctx, cfg))
}

// ReloadFailed tells that a configuration could not even be read: all goes on as
// it was.
func (s *Sidecar) ReloadFailed(err error) { _ = s.reloaded(err) }

// reloaded tells how a reload ended.
func (s *Sidecar) reloaded(err error) error {
	s.metrics.Reloaded(err)
	s.status.Reloaded(err)
	return err
}

// apply is Reload, but for telling of it; s.mu is held.
func (s *Sidecar) apply(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	if err := s.fixed(cfg); err != nil {
		return err
	}
	next, err := s.prepare(ctx, cfg)
	if err != nil {
		return err
	}
	// What stays may have new content. If it can't be read, the old is still good.
	for key, src := range next.sources {
		if s.sources[key] != nil {
			err = errors.Join(err, src.Reload(ctx))
		}
	}
	if err != nil {
		return errors.Join(err, next.undo())
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
	}
	if was, is := s.cfg.Metrics, cfg.Metrics; was.Prefix != is.Prefix || was.Graphite != is.Graphite || was.URL != is.URL || was.Interval != is.Interval {
		errs = append(errs, setting.Errorf("metrics", "", "can't change while running: restart"))
	}
	return errors.Join(append(errs, s.beyondSandbox(cfg))...)
}

// commit puts a plan into use. Nothing in it can fail. s.mu is held.
func (s *Sidecar) commit(p *plan) {
	for key, src := range p.sources {
		if s.sources[key] == nil {
			s.startSource(src)
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
		s.retire(t)
	}
	for key, src := range s.sources {
		if p.sources[key] == nil {
			src.stop()
		}
	}
	s.sources, s.cfg = p.sources, p.cfg
	s.show()
}

func (s *Sidecar) startSource(src *source) {
	ctx, cancel := context.WithCancel(s.support)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := src.Run(ctx); err != nil && ctx.Err() == nil {
			s.fail(fmt.Errorf("identity: %w", err))
		}
	}()
	src.stop = func() {
		cancel()
		<-done
	}
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

// retire ends a tunnel that is not in the configuration any more.
func (s *Sidecar) retire(t *tunnel) {
	s.log.Info("tunnel removed", "tunnel", t.cfg.Name, "connections", t.loop.Open())
	t.stop()
	s.draining.Go(func() {
		if err := <-t.done; err != nil {
			s.log.Warn("tunnel removed", "tunnel", t.cfg.Name, "error", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, other := range s.tunnels {
			if other.cfg.Name == t.cfg.Name && other.cfg.Mode == t.cfg.Mode {
				return // it moved to another address
			}
		}
		s.metrics.Remove(t.cfg.Name, t.cfg.Mode.Direction())
	})
}

// fail ends the sidecar for a reason of its own.
func (s *Sidecar) fail(err error) {
	select {
	case s.failures <- err:
	default: // it is ending already
	}
}
