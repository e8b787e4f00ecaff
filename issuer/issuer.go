// Package issuer owns the composition of the issuer: which parts there are, in
// which order they start and stop. What they do is theirs: records in
// issuer/store, the index over them in issuer/registry, keys and signatures in
// issuer/ca, admission in issuer/enroll, the API in issuer/serverapi.
package issuer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/internal/health"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/metrics"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// Run runs an issuer until ctx is done, and returns nil then; or until a part
// of it fails, and returns why. Calls in progress get 10 s to end.
//
// The order is that of need. The data directory is locked before anything in it
// is read. Both listeners are bound before anything is written, so that a port
// in use leaves no trace; who connects waits until they serve. Records come
// before the index over them, and that before the authorities, which publish
// through both. The first authority exists before anyone can ask for a bundle,
// so no bundle is ever empty. Stopping is the reverse.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	if err := durable.MkdirPrivate(cfg.DataDir); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	unlock, err := durable.Lock(cfg.lockFile())
	if err != nil {
		return fmt.Errorf("data directory %s: %w", cfg.DataDir, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()

	// Read early: a corrupt key file ends the start with nothing else touched.
	keys, err := openKeys(cfg)
	if err != nil {
		return err
	}
	p := &parts{cfg: cfg, started: time.Now()}
	p.metrics = metrics.New(cfg.Metrics, p.sources(), cfg.Log)
	p.checker = health.New(cfg.Health, cfg.Log, p.checks()...)
	on, err := bind(ctx, cfg, p.jwtKeys)
	if err != nil {
		return err
	}
	// Once they serve, the servers close them, and this does nothing.
	defer on.close()
	st, err := store.Open(ctx, store.Config{Dir: cfg.storeDir(), TrustDomain: cfg.TrustDomain, Log: cfg.Log})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	p.store = st
	return p.run(ctx, on, keys)
}

func openKeys(cfg Config) (ca.Keys, error) {
	if cfg.MemoryKeys {
		return ca.NewMemoryKeys(), nil
	}
	return ca.OpenKeys(cfg.keyFile())
}

// run runs what is above the store. The parts below the listeners outlive ctx,
// so that calls in progress can end.
func (p *parts) run(ctx context.Context, on *listeners, keys ca.Keys) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fail := func(err error) { cancel(&partError{err}) }
	below := newGroup(context.WithoutCancel(ctx), fail)
	defer below.stop()
	below.watch(p.store.Done())

	p.registry = registry.New(p.store, p.cfg.Log)
	below.run("registry", p.registry.Run)
	select {
	case <-p.registry.Ready():
	case <-ctx.Done():
		return outcome(ctx)
	}
	if err := p.loadAuthority(ctx, keys); err != nil {
		if ctx.Err() != nil {
			return outcome(ctx)
		}
		return err
	}
	below.run("authority", p.authority.Run)
	if p.cfg.PruneAgentsExpiredFor > 0 {
		below.run("pruning", p.pruneAgents)
	}
	server, err := p.newServer()
	if err != nil {
		return err
	}
	var serving sync.WaitGroup
	serve := func(run func(context.Context) error) {
		serving.Go(func() {
			if err := run(ctx); err != nil {
				fail(err)
			}
		})
	}
	serve(func(ctx context.Context) error { return server.Serve(ctx, on.tcp, on.local) })
	for _, run := range p.further(on) {
		serve(run)
	}
	// What is bound queues connections: to serve is a matter of scheduling now.
	p.cfg.Ready(on.addrs(p.cfg))
	<-ctx.Done()
	serving.Wait()
	return outcome(ctx)
}

// partError is the cause of the end of a context that a part ended by failing.
type partError struct{ err error }

func (e *partError) Error() string { return e.err.Error() }

// outcome is nil if ctx was ended from outside, and else why a part failed.
func outcome(ctx context.Context) error {
	if failed, ok := errors.AsType[*partError](context.Cause(ctx)); ok {
		return failed.err
	}
	return nil
}
