package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/health"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/backup"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/metrics"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/serverapi"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// parts is what an issuer that runs is made of, above its store.
type parts struct {
	cfg       Config
	store     *store.Store
	registry  *registry.Registry
	authority *ca.Authority
	metrics   *metrics.Set // nil counts nothing
	checker   *health.Checker
	started   time.Time
}

// loadAuthority gets the authorities ready to sign. Records that come from a
// backup get new ones: others may have signed with the keys since.
func (p *parts) loadAuthority(ctx context.Context, keys ca.Keys) error {
	restored, err := p.store.Restored(ctx)
	if err != nil {
		return err
	}
	p.authority = ca.New(ca.Config{
		TrustDomain: p.cfg.TrustDomain,
		Keys:        keys,
		Journal:     journal{store: p.store, registry: p.registry},
		Parent:      p.cfg.Parent,
		TTL:         p.cfg.CATTL,
		X509SVIDTTL: p.cfg.DefaultX509SVIDTTL,
		AgentTTL:    p.cfg.AgentTTL,
		Subject:     p.cfg.CASubject,
		KeyType:     p.cfg.CAKeyType,
		JWTKeyType:  p.cfg.JWTKeyType,
		JWTSVIDTTL:  p.cfg.DefaultJWTSVIDTTL,
		JWTIssuer:   p.cfg.JWTIssuer,
		DisableJWT:  p.cfg.DisableJWTSVIDs,
		Composers:   p.cfg.Composers,
		Holders:     p.registry,
		Restored:    restored,
		Signed:      p.metrics.Issued,
		Log:         p.cfg.Log,
	})
	if err := p.authority.Load(ctx); err != nil {
		return err
	}
	if !restored {
		return nil
	}
	return p.store.ClearRestored(ctx)
}

// newServer makes the API.
func (p *parts) newServer() (*serverapi.Server, error) {
	methods := make(map[string]enroll.Method, len(p.cfg.Methods))
	for name, newMethod := range p.cfg.Methods {
		method, err := newMethod(MethodDeps{TrustDomain: p.cfg.TrustDomain, Bundle: p.bundle, Log: p.cfg.Log})
		if err != nil {
			return nil, fmt.Errorf("node attestation %s: %w", name, err)
		}
		methods[name] = method
	}
	deps := serverapi.Deps{
		TrustDomain: p.cfg.TrustDomain,
		Store:       p.store,
		Registry:    p.registry,
		CA:          p.authority,
		Enroll: enroll.New(enroll.Config{
			TrustDomain:       p.cfg.TrustDomain,
			Store:             p.store,
			Registry:          p.registry,
			CA:                p.authority,
			Methods:           methods,
			AgentIDAsSelector: p.cfg.AgentIDAsSelector,
			Log:               p.cfg.Log,
		}),
		AdminIDs:      p.cfg.AdminIDs,
		Limits:        p.cfg.Limits,
		Audit:         p.cfg.Audit,
		Level:         p.cfg.Level,
		Backup:        p.backup,
		PublishJWT:    p.authority.PublishJWTKey,
		ProxyProtocol: p.cfg.ProxyProtocol,
		Started:       p.started,
		RequirePQKEM:  p.cfg.RequirePQKEM,
		Healthy:       p.checker.Ready,
		Calls:         p.metrics.Call,
		Joins:         p.metrics.Join,
		RateLimited:   p.metrics.RateLimited,
		Log:           p.cfg.Log,
	}
	if p.cfg.Level != nil {
		deps.LaunchLevel = p.cfg.Level.Level()
	}
	return serverapi.New(deps), nil
}

// further is what serves beside the API.
func (p *parts) further(on *listeners) (runs []func(context.Context) error) {
	if on.metrics != nil {
		runs = append(runs, func(ctx context.Context) error { return p.metrics.Serve(ctx, on.metrics) })
	}
	if on.health != nil {
		runs = append(runs, func(ctx context.Context) error { return p.checker.Serve(ctx, on.health) })
	}
	if on.oidc != nil {
		runs = append(runs, on.oidc.Run)
	}
	return runs
}

// checks say whether the issuer can issue now, under SPIRE's names.
func (p *parts) checks() []health.Check {
	return []health.Check{
		{Name: "catalog.datastore", Ready: func(ctx context.Context) error { return p.store.Check(ctx) }},
		{Name: "server.ca", Ready: p.signs},
	}
}

// signs signs an SVID that nobody gets, for a key that nobody has.
func (p *parts) signs(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	id, err := spiffeid.FromPath(p.cfg.TrustDomain, "/for/health/check/only")
	if err != nil {
		return err
	}
	_, err = p.authority.SignX509SVID(ctx, ca.Params{ID: id, PublicKey: key.Public(), TTL: time.Minute})
	return err
}

func (p *parts) jwtKeys() []*types.JWTKey { return p.registry.Bundle().GetJwtAuthorities() }

func (p *parts) backup(ctx context.Context, w io.Writer) error {
	from := backup.Parts{TrustDomain: p.cfg.TrustDomain, Save: p.store.Save, Version: p.cfg.Version}
	if !p.cfg.MemoryKeys {
		from.KeyFile = p.cfg.keyFile()
	}
	return backup.Write(ctx, w, from)
}

// pruneInterval is SPIRE's, give or take a quarter of an hour.
const pruneInterval = time.Hour

// pruneAgents forgets agents that expired long ago, now and then, until ctx ends.
func (p *parts) pruneAgents(ctx context.Context) error {
	for {
		wait := pruneInterval - 15*time.Minute + mathrand.N(30*time.Minute)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		n, err := p.registry.PruneAgents(ctx, p.cfg.PruneAgentsExpiredFor, p.cfg.PruneAgentsBatch, p.cfg.PruneTOFUAgents)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			p.cfg.Log.Warn("expired agents were not deleted; trying again later", "error", err)
		case n > 0:
			p.cfg.Log.Info("deleted agents that expired long ago", slog.Int("agents", n))
		}
	}
}

// journal makes the store a ca.Journal: what is written is in the registry, from
// which clients and handshakes are answered, before anything is signed with it.
type journal struct {
	store    *store.Store
	registry *registry.Registry
}

func (j journal) UpdateCA(ctx context.Context, change func(*store.CAState) error) (store.Revision, error) {
	rev, err := j.store.UpdateCA(ctx, change)
	if err != nil {
		return rev, err
	}
	return rev, j.registry.Wait(ctx, rev)
}
