package sidecar

import (
	"context"
	"errors"

	"github.com/lanyard-mtls/lanyard/sidecar/policy"
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
