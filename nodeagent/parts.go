package nodeagent

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/health"
	"github.com/lanyard-mtls/lanyard/nodeagent/adminapi"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/metrics"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// parts is what an agent that runs is made of, besides its sockets.
type parts struct {
	cfg      Config
	started  time.Time
	client   *upstream.Client
	cache    *svidcache.Cache
	jwts     *jwtcache.Cache
	attestor *workloadattest.Attestor
	limits   *workloadattest.Limits
	service  *workloadapi.Service
	metrics  *metrics.Set // nil counts nothing
	checker  *health.Checker
	// stopping ends when streams are to end.
	stopping context.Context

	// upToDate is closed when the agent first was, failed when it first turned
	// out not to be.
	upToDate, failed         chan struct{}
	upToDateOnce, failedOnce sync.Once
	kept                     kept
}

// assemble makes the parts. It reads the agent's state; it starts nothing.
func assemble(cfg Config, stopping context.Context) (*parts, error) {
	p := &parts{cfg: cfg, started: time.Now(), stopping: stopping, upToDate: make(chan struct{}), failed: make(chan struct{})}
	client, err := p.open()
	if err != nil {
		return nil, err
	}
	p.client = client
	p.metrics = metrics.New(cfg.Metrics, p.sources(), cfg.Log)
	p.cache = svidcache.New(svidcache.Config{
		TrustDomain:        cfg.TrustDomain,
		Signer:             client,
		MaxSize:            cfg.X509SVIDCacheMaxSize,
		KeyType:            cfg.WorkloadKeyType,
		AvailabilityTarget: cfg.AvailabilityTarget,
		Signed:             func(n int, took time.Duration, err error) { p.metrics.Signed("x509", n, took, err) },
		Log:                cfg.Log,
	})
	p.jwts = jwtcache.New(jwtcache.Config{
		Signer:          client,
		MaxSize:         cfg.JWTSVIDCacheMaxSize,
		CacheHitTimeout: cfg.JWTSVIDCacheHitTimeout,
		Signed:          func(n int, took time.Duration, err error) { p.metrics.Signed("jwt", n, took, err) },
		Log:             cfg.Log,
	})
	p.attestor = workloadattest.New(workloadattest.Options{
		DiscoverPath: cfg.DiscoverWorkloadPath,
		SizeLimit:    cfg.WorkloadSizeLimit,
		Plugins:      cfg.WorkloadPlugins,
		Observe:      p.metrics.Attested,
		Log:          cfg.Log,
	})
	p.limits = workloadattest.NewLimits(cfg.Log)
	p.service = workloadapi.New(p.workloadAPI())
	p.load()
	p.checker = health.New(cfg.Health, cfg.Log, health.Check{Name: "agent", Ready: p.ready})
	return p, nil
}

func (p *parts) open() (*upstream.Client, error) {
	bundle, err := p.cfg.trustBundle()
	if err != nil {
		return nil, err
	}
	useSync := !p.cfg.NoSyncAuthorizedEntries
	return upstream.Open(upstream.Config{
		TrustDomain:        p.cfg.TrustDomain,
		DataDir:            p.cfg.DataDir,
		ServerAddress:      p.cfg.ServerAddress,
		ServerAddresses:    p.cfg.ServerAddresses,
		Attestor:           p.cfg.Attestor,
		Version:            p.cfg.Version,
		TrustBundle:        bundle,
		TrustSource:        p.cfg.TrustSource,
		InsecureBootstrap:  p.cfg.InsecureBootstrap,
		Rebootstrap:        upstream.Rebootstrap{Mode: p.cfg.Rebootstrap, Delay: p.cfg.RebootstrapDelay},
		SyncInterval:       p.cfg.SyncInterval,
		UseSync:            &useSync,
		AvailabilityTarget: p.cfg.AvailabilityTarget,
		RequirePQKEM:       p.cfg.RequirePQKEM,
		MemoryKeys:         p.cfg.MemoryKeys,
		Attempted:          p.attempted,
		Log:                p.cfg.Log,
	})
}

func (p *parts) workloadAPI() workloadapi.Config {
	sockets := make(map[string]workloadapi.Socket, len(p.cfg.Sockets))
	for _, s := range p.cfg.Sockets {
		sockets[s.Name] = workloadapi.Socket{Only: s.Only}
	}
	return workloadapi.Config{
		Attestor:                      p.attestor,
		Cache:                         p.cache,
		JWTs:                          p.jwts,
		TrustDomain:                   p.cfg.TrustDomain,
		AllowedForeignJWTClaims:       p.cfg.AllowedForeignJWTClaims,
		AllowUnauthenticatedVerifiers: p.cfg.AllowUnauthenticatedVerifiers,
		RateLimits:                    p.cfg.RateLimits,
		LogSelectors:                  p.cfg.LogSelectors,
		Sockets:                       sockets,
		Call:                          p.metrics.Call,
		Stopping:                      p.stopping,
		Log:                           p.cfg.Log,
	}
}

func (p *parts) adminAPI() adminapi.Deps {
	return adminapi.Deps{
		TrustDomain:         p.cfg.TrustDomain,
		Cache:               p.cache,
		JWTs:                p.jwts,
		Attestor:            p.attestor,
		Contact:             p.client.Contact,
		ID:                  p.client.ID,
		SVID:                p.svid,
		Level:               p.cfg.Level,
		LaunchLevel:         p.cfg.LaunchLevel,
		AuthorizedDelegates: p.cfg.AuthorizedDelegates,
		Started:             p.started,
		Stopping:            p.stopping,
		Call:                p.metrics.Call,
		Log:                 p.cfg.Log,
	}
}

// sources are read at each scrape, when all parts are there.
func (p *parts) sources() metrics.Sources {
	return metrics.Sources{
		TrustDomain: p.cfg.TrustDomain,
		Started:     p.started,
		Version:     p.cfg.Version,
		Cache:       func() svidcache.Stats { return p.cache.Stats() },
		JWTs:        func() int { return p.jwts.Len() },
		Contact:     p.client.Contact,
		SVID:        p.svid,
		Connections: func() int { return p.limits.Connections() },
		Identity:    p.client.Own(),
	}
}

// svid is the agent's own chain, nil until it has joined.
func (p *parts) svid() []*x509.Certificate {
	svid, err := p.client.Own().SVID()
	if err != nil {
		return nil
	}
	return svid.Certificates
}

// attempted takes note of how an attempt to be up to date ended.
func (p *parts) attempted(err error) {
	p.metrics.Synced(err)
	if err == nil {
		p.cache.Reached()
		p.upToDateOnce.Do(func() { close(p.upToDate) })
	} else {
		p.failedOnce.Do(func() { close(p.failed) })
	}
}

// ready says whether workloads can be served: the agent knows whom it may serve,
// from the issuer or from what it kept.
func (p *parts) ready(context.Context) error {
	select {
	case <-p.cache.Synced():
		return nil
	case <-p.kept.served:
		return nil
	default:
		return errors.Join(svidcache.ErrNotSynced, p.client.Contact().Err)
	}
}

// alive says whether the agent still does its work, for systemd's watchdog: it
// hangs or fails where callers would. An issuer that is away is no reason. It may
// be asked before there are parts.
func (p *parts) alive(ctx context.Context) error {
	if p == nil {
		return nil
	}
	p.cache.Stats()
	_, _, err := p.attestor.AttestPID(ctx, os.Getpid())
	return err
}
