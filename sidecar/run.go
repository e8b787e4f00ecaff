package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/inbound"
	"github.com/lanyard-mtls/lanyard/sidecar/outbound"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

// Run runs a sidecar until ctx ends and its connections have. It listens before
// it has an identity, and does not need the Workload API to be there. The error
// says what kept it from starting, or that connections had to be cut off.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	s, err := build(cfg.withDefaults())
	if err != nil {
		return err
	}
	if err := s.bind(ctx); err != nil {
		return err
	}
	return s.run(ctx)
}

// sidecar is one that is put together.
type sidecar struct {
	cfg    Config
	listen endpoint
	client *workload.Client
	loop   *accept.Loop
	health *status.Handler
	status net.Listener // nil without Config.Status
}

func build(cfg Config) (*sidecar, error) {
	s := &sidecar{cfg: cfg}
	var target endpoint
	var errs [3]error
	s.listen, errs[0] = parseEndpoint("--listen", cfg.Listen)
	target, errs[1] = parseEndpoint("--target", cfg.Target)
	s.client, errs[2] = workload.New(workload.Config{Addr: cfg.WorkloadAPIAddr, Log: cfg.Log})
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	id := identity.FromWorkloadAPI(s.client, cfg.SPIFFEID)
	s.loop = &accept.Loop{Target: cfg.Target, ShutdownTimeout: cfg.ShutdownTimeout, Log: cfg.Log}
	health := status.Config{Identity: id.Status, Open: s.loop.Open, Listen: cfg.Listen, Target: cfg.Target, Timeout: cfg.ConnectTimeout}
	rules, err := cfg.policy()
	if err != nil {
		return nil, err
	}
	buffers := new(pipe.Buffers)
	if cfg.Mode == Server {
		s.loop.Direction = record.Inbound
		s.loop.Handler = inbound.New(inbound.Config{Identity: id, Policy: rules, Dial: target.dial,
			ConnectTimeout: cfg.ConnectTimeout, Buffers: buffers})
		// A client's target is another sidecar, which would record each probe.
		health.DialTarget = target.dial
	} else {
		s.loop.Direction = record.Outbound
		s.loop.Handler = outbound.New(outbound.Config{Identity: id, Policy: rules, Dial: target.dial,
			ServerName: target.serverName(), ConnectTimeout: cfg.ConnectTimeout, Buffers: buffers})
	}
	s.health = status.New(health)
	return s, nil
}

// policy returns the rules that the flags ask for.
func (c Config) policy() (policy.Policy, error) {
	switch {
	case c.Mode == Server && c.AllowAll:
		return policy.AllowAll("--allow-all"), nil
	case c.Mode == Server:
		return policy.CompilePatterns("--allow-uri", c.AllowURIs)
	case len(c.VerifyURIs) == 0:
		return policy.OwnTrustDomain("--verify-uri"), nil
	default:
		return policy.CompilePatterns("--verify-uri", c.VerifyURIs)
	}
}

// bind opens every listener, so that a sidecar that cannot serve all of them
// serves none.
func (s *sidecar) bind(ctx context.Context) error {
	var err error
	if s.loop.Listener, err = s.listen.listen(ctx, "--listen"); err != nil {
		return err
	}
	if s.cfg.Status == "" {
		return nil
	}
	e, err := parseStatus(s.cfg.Status)
	if err == nil {
		s.status, err = e.listen(ctx, "--status")
	}
	if err != nil {
		return errors.Join(err, s.loop.Listener.Close())
	}
	return nil
}

// run serves until ctx ends. The status server and the identity go first and
// end last: while connections drain, health is told and SVIDs rotate.
func (s *sidecar) run(ctx context.Context) error {
	supportCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var support sync.WaitGroup
	defer support.Wait()
	defer stop()
	support.Go(func() { s.client.Run(supportCtx) }) // returns nil, and only when told to
	if s.status != nil {
		support.Go(func() { s.serveStatus(supportCtx) })
	}
	addrs := Addrs{Listen: s.loop.Listener.Addr()}
	if s.status != nil {
		addrs.Status = s.status.Addr()
	}
	s.cfg.Log.Info("listening", "mode", string(s.cfg.Mode), "address", addrs.Listen.String(), "target", s.cfg.Target,
		"workload_api", s.client.Addr().String())
	s.health.Listening()
	announced := make(chan struct{})
	withdraw := context.AfterFunc(ctx, func() {
		defer close(announced)
		s.health.Stopping()
		s.cfg.Log.Info("shutting down", "connections", s.loop.Open(), "timeout", s.cfg.ShutdownTimeout)
	})
	if s.cfg.Ready != nil {
		s.cfg.Ready(addrs)
	}
	err := s.loop.Run(ctx)
	if !withdraw() {
		<-announced
	}
	s.health.Stopping()
	s.cfg.Log.Info("stopped")
	return err
}

func (s *sidecar) serveStatus(ctx context.Context) {
	server := &http.Server{
		Handler:           s.health,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: s.cfg.ConnectTimeout,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		// Requests end with ctx; they get a moment to say so.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := server.Serve(s.status)
	if stop() {
		s.cfg.Log.Error("status server ended", "error", fmt.Errorf("--status %s: %w", s.cfg.Status, err))
		return
	}
	<-closed
}
