package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/attest"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
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
	bundle, err := cfg.trustBundle()
	if err != nil {
		return err
	}
	// The lock comes before anything in the directory is read: two agents with
	// one key would renew each other away.
	if err := durable.MkdirPrivate(cfg.DataDir); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	unlock, err := durable.Lock(filepath.Join(cfg.DataDir, "agent.lock"))
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	defer unlock()

	if cfg.Attestor == nil {
		cfg.Attestor = attest.JoinToken{Token: attest.Token{Value: cfg.JoinToken}}
	}
	client, err := upstream.Open(upstream.Config{
		TrustDomain:       cfg.TrustDomain,
		DataDir:           cfg.DataDir,
		ServerAddress:     cfg.ServerAddress,
		Attestor:          cfg.Attestor,
		Version:           cfg.Version,
		TrustBundle:       bundle,
		InsecureBootstrap: cfg.InsecureBootstrap,
		SyncInterval:      cfg.SyncInterval,
		Log:               cfg.Log,
	})
	if err != nil {
		return err
	}
	return run(ctx, cfg, client)
}

// run starts and stops the parts.
//
// Start: both sockets are bound before anything is served, or any token spent:
// a socket in use is found before the agent has changed anything. They are
// served before the agent has joined, so that workloads are told Unavailable,
// which they wait on, and not "connection refused".
//
// Stop is the reverse: the streams end and the sockets close while the cache and
// the issuer are still there, so that no stream ends for a reason that isn't so.
func run(ctx context.Context, cfg Config, client *upstream.Client) error {
	cache := svidcache.New(svidcache.Config{
		TrustDomain: cfg.TrustDomain,
		Signer:      client,
		MaxSize:     cfg.X509SVIDCacheMaxSize,
		KeyType:     cfg.WorkloadKeyType,
		Log:         cfg.Log,
	})
	jwts := jwtcache.New(jwtcache.Config{Signer: client, MaxSize: cfg.JWTSVIDCacheMaxSize, Log: cfg.Log})
	stopping, stopStreams := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStreams()
	service := workloadapi.New(workloadapi.Config{
		Attestor: workloadattest.New(workloadattest.Options{
			DiscoverPath: cfg.DiscoverWorkloadPath,
			SizeLimit:    cfg.WorkloadSizeLimit,
			Log:          cfg.Log,
		}),
		Cache:       cache,
		JWTs:        jwts,
		TrustDomain: cfg.TrustDomain,

		AllowedForeignJWTClaims: cfg.AllowedForeignJWTClaims,

		Stopping: stopping,
		Log:      cfg.Log,
	})
	servers, err := bind(cfg, service)
	if err != nil {
		return err
	}
	servers.serve()
	if cfg.Ready != nil {
		cfg.Ready(servers.addrs())
	}
	cfg.Log.Info("agent serves the Workload API", "socket", cfg.SocketPath)

	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	parts, inner := errgroup.WithContext(inner)
	parts.Go(func() error { return client.Run(inner) })
	parts.Go(func() error {
		return client.Watch(inner, func(state upstream.Update) {
			cache.Apply(state)
			jwts.Apply(state.JWT[cfg.TrustDomain])
		})
	})
	parts.Go(func() error { return cache.Run(inner) })
	parts.Go(func() error { return jwts.Run(inner) })
	parts.Go(func() error {
		select {
		case <-cache.Synced():
			servers.healthy()
			cfg.Log.Info("agent is in sync with its issuer", "id", client.ID(), "issuer", cfg.ServerAddress)
			return nil
		case <-inner.Done():
			return nil
		}
	})

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
