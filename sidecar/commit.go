package sidecar

import (
	"context"
	"fmt"
	"slices"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

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
