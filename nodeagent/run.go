package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/nodeagent/sockets"
	"github.com/lanyard-mtls/lanyard/nodeagent/tidy"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/attest"
)

// Run is an agent until ctx ends, which is no error. It outlasts an issuer that
// is away. It returns an error where the configuration, the data directory or a
// socket is not usable, where joining cannot work, and where the issuer refuses
// the agent ([upstream.RefusedError]).
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.validate(); err != nil {
		return err
	}
	if cfg.Attestor == nil {
		cfg.Attestor = attest.JoinToken{Token: attest.Token{Value: cfg.JoinToken}}
	}
	if err := durable.MkdirPrivate(cfg.DataDir); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	var running atomic.Pointer[parts]
	set, err := sockets.Open(ctx, sockets.Config{
		Specs:    cfg.specs(),
		TakeOver: cfg.TakeOver,
		DataDir:  cfg.DataDir,
		Alive:    func(ctx context.Context) error { return running.Load().alive(ctx) },
		Log:      cfg.Log,
	})
	if err != nil {
		return err
	}
	// The lock comes before anything in the directory is read: two agents with
	// one key would renew each other away.
	err = set.Run(ctx, func(ctx context.Context) error { return run(ctx, cfg, set, running.Store) })
	return errors.Join(err, set.Close(false))
}

// run starts and stops the parts.
//
// Start: all sockets are bound before anything is served, or any token spent:
// a socket in use is found before the agent has changed anything. They are
// served before the agent has joined, so that workloads are told Unavailable,
// which they wait on, and not "connection refused".
//
// Stop is the reverse: the streams end and the sockets close while the cache and
// the issuer are still there, so that no stream ends for a reason that isn't so.
// What the agent knows is kept last of all.
func run(ctx context.Context, cfg Config, set *sockets.Set, assembled func(*parts)) error {
	stopping, stopStreams := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStreams()
	p, err := assemble(cfg, stopping)
	if err != nil {
		return err
	}
	assembled(p)
	beside, err := p.listenBeside(ctx)
	if err != nil {
		return err
	}
	servers := p.serve(set)
	if cfg.Ready != nil {
		cfg.Ready(p.addrs(servers, beside))
	}
	set.Ready("serving " + cfg.SocketPath)
	cfg.Log.Info("agent serves the Workload API", "socket", cfg.SocketPath)

	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	parts, inner := errgroup.WithContext(inner)
	for _, run := range p.runs(beside) {
		parts.Go(func() error { return run(inner) })
	}
	parts.Go(func() error { return p.greet(inner, servers, set) })

	select {
	case <-ctx.Done():
	case <-inner.Done():
	case <-servers.failed:
	}
	stopStreams()
	serveErr := servers.stop()
	cancel(errStopped)
	err = parts.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(serveErr, err)
}

// errStopped is why the parts end.
var errStopped = errors.New("the agent is stopping")

// runs are what runs beside the sockets, until its context ends.
func (p *parts) runs(on beside) []func(context.Context) error {
	runs := []func(context.Context) error{p.client.Run, p.watch, p.cache.Run, p.jwts.Run, p.keep, tidy.Run}
	if on.metrics != nil {
		runs = append(runs, func(ctx context.Context) error { return p.metrics.Serve(ctx, on.metrics) })
	}
	if on.health != nil {
		runs = append(runs, func(ctx context.Context) error { return p.checker.Serve(ctx, on.health) })
	}
	return runs
}

func (p *parts) watch(ctx context.Context) error {
	return p.client.Watch(ctx, func(u upstream.Update) {
		p.cache.Apply(u)
		p.jwts.Apply(u.JWT[p.cfg.TrustDomain])
	})
}

// greet says when workloads can be served, and when the issuer is there.
func (p *parts) greet(ctx context.Context, s *servers, set *sockets.Set) error {
	select {
	case <-p.cache.Synced():
	case <-p.kept.served:
	case <-ctx.Done():
		return nil
	}
	s.healthy()
	select {
	case <-p.upToDate:
		set.Status("in sync with " + p.client.Contact().Address)
		p.cfg.Log.Info("agent is in sync with its issuer", "id", p.client.ID(), "issuer", p.client.Contact().Address)
	case <-ctx.Done():
	}
	return nil
}
