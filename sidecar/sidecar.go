package sidecar

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/notify"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/poll"
	"github.com/lanyard-mtls/lanyard/sidecar/sandbox"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

// Sidecar carries tunnels. Make one with New.
type Sidecar struct {
	log       *slog.Logger
	buffers   pipe.Buffers
	metrics   *metrics.Set
	status    *status.Server
	notify    *notify.Notifier
	inherited *listen.Inherited
	poller    *poll.Poller

	view  atomic.Pointer[view]            // nil before anything is in use
	https bool                            // the status port is served over it
	shown atomic.Pointer[tls.Certificate] // on the status port, the last one that was valid

	// mu is held while the configuration changes, and when it is looked at.
	mu       sync.Mutex
	cfg      Config
	tunnels  map[string]*tunnel // by their listeners' keys
	sources  map[string]*source // by their identities' keys
	running  context.Context    // nil before Run, and ended once the sidecar shuts down
	support  context.Context    // of what connections need to the end
	failures chan error         // what ends the sidecar; nil if somebody asked for it
	draining sync.WaitGroup     // of tunnels that a reload took away
	confined *sandbox.Rules     // what is left to the process; nil if it is all
}

// New returns the sidecar that cfg describes. It does no I/O. The error says all
// that is wrong, as joined *setting.Error.
func New(cfg Config) (*Sidecar, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Sidecar{log: cfg.Log, cfg: cfg, metrics: metrics.New(cfg.Metrics), notify: notify.New(cfg.Notify),
		tunnels: map[string]*tunnel{}, sources: map[string]*source{}, failures: make(chan error, 1)}
	s.metrics.Identities(s.identities)
	s.status = s.newStatus()
	return s, nil
}

// Run carries the tunnels until ctx ends and their connections have. It listens
// before there is an identity, and does not need the Workload API to be there;
// files must be readable. The error says what kept it from starting, or that
// connections had to be cut off.
func (s *Sidecar) Run(ctx context.Context) (err error) {
	if s.inherited, err = listen.TakeInherited(); err != nil {
		return err
	}
	defer s.inherited.Close()
	if s.poller, err = poll.New(poll.Config{}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.poller.Close()) }()
	// While connections drain, health is told and identities rotate.
	support, stop := context.WithCancel(context.WithoutCancel(ctx))
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	running, end := context.WithCancel(ctx)
	defer end()
	cfg, err := s.checked(ctx, s.cfg)
	if ctx.Err() != nil {
		return nil // told to end while names were looked up
	}
	if err != nil {
		return err
	}
	addrs, err := s.begin(cfg, running, support, &helpers)
	if err != nil {
		return err
	}
	if cfg.Ready != nil {
		cfg.Ready(addrs)
	}
	debug.FreeOSMemory() // what starting took is not needed again for long
	select {
	case <-ctx.Done():
	case err = <-s.failures:
	}
	return errors.Join(err, s.shutDown(end))
}

// begin binds every listener and serves once all are bound.
func (s *Sidecar) begin(cfg Config, running, support context.Context, helpers *sync.WaitGroup) (Addrs, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.prepare(running, cfg)
	if err != nil {
		return Addrs{}, err
	}
	statusListener, err := s.bindStatus(running)
	if err != nil {
		return Addrs{}, errors.Join(err, s.undo(running, next))
	}
	if err := s.confine(); err != nil {
		return Addrs{}, errors.Join(err, s.undo(running, next), closeIf(statusListener))
	}
	s.running, s.support = running, support
	if statusListener != nil {
		helpers.Go(func() {
			if err := s.status.Serve(support, statusListener); err != nil {
				s.log.Error("health is not told any more", "error", err)
			}
		})
	}
	helpers.Go(func() { s.metrics.Run(support) }) // returns nil, and only when told to
	s.commit(next)
	s.status.Listening()
	s.awaitIdentities(support, helpers)
	helpers.Go(func() { s.watchdog(support) })
	return s.addrs(statusListener), nil
}

func closeIf(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// awaitIdentities ends the sidecar if an identity does not come in time, unless
// it is not wanted any more by then; s.mu is held.
func (s *Sidecar) awaitIdentities(ctx context.Context, helpers *sync.WaitGroup) {
	limit := s.cfg.IdentityTimeout
	if limit == 0 {
		return
	}
	for _, src := range s.sources {
		helpers.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			defer context.AfterFunc(src.life, cancel)()
			if _, err := src.Wait(ctx); err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				s.fail(fmt.Errorf("no identity within %s: %w", limit, err))
			}
		})
	}
}

func (s *Sidecar) addrs(statusListener net.Listener) Addrs {
	addrs := Addrs{Tunnels: map[string]net.Addr{}}
	for _, t := range s.tunnels {
		addrs.Tunnels[t.cfg.Name] = t.loop.Listener.Addr()
	}
	if statusListener != nil {
		addrs.Status = statusListener.Addr()
	}
	return addrs
}

// shutDown withdraws readiness, then closes the listeners and waits for the
// connections. The sources of identities end last.
func (s *Sidecar) shutDown(end context.CancelFunc) error {
	s.mu.Lock()
	s.status.Stopping()
	tunnels := slices.Collect(maps.Values(s.tunnels))
	open := int64(0)
	for _, t := range tunnels {
		open += t.loop.Open()
	}
	s.log.Info("shutting down", "connections", open, "timeout", s.cfg.ShutdownTimeout)
	end()
	s.mu.Unlock()

	var errs []error
	for _, t := range tunnels {
		errs = append(errs, <-t.done)
	}
	s.draining.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.sources {
		src.stop(s.support)
	}
	s.log.Info("stopped")
	return errors.Join(errs...)
}

// Shutdown begins the end, as the end of Run's context does, and returns at once.
func (s *Sidecar) Shutdown() { s.fail(nil) }
