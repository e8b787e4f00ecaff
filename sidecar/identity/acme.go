package identity

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lanyard-mtls/lanyard/sidecar/identity/filewatch"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// acme is the Source of a certificate from an ACME authority. The authorities of peers come from CACert.
type acme struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	obtainer Obtainer

	changing    sync.Mutex // guards the next three
	certificate *tls.Certificate
	trust       contents
	watched     *filewatch.Files

	hub hub
}

func newACME(c Config, d Deps) (Source, error) {
	if d.ACME == nil {
		return nil, setting.Errorf("auto_acme_cert", c.ACME.FQDN, "this binary was built without ACME")
	}
	obtainer, err := d.ACME(c.ACME, d.Log)
	if err != nil {
		return nil, setting.Errorf("auto_acme_cert", c.ACME.FQDN, "%w", err)
	}
	return &acme{cfg: c, log: d.Log, now: d.Now, obtainer: obtainer, hub: newHub()}, nil
}

// Load implements Source. From then on there is an identity, without a certificate at first: the authority's probe comes to
// the listener, and has to be answered there.
func (a *acme) Load(ctx context.Context) error {
	if a.cfg.Watch {
		a.changing.Lock()
		a.watched = filewatch.New(a.log, a.cfg.paths()...)
		a.changing.Unlock()
	}
	return a.Reload(ctx)
}

// Reload implements Source: it is about CACert alone.
func (a *acme) Reload(context.Context) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	r := &reading{cfg: a.cfg}
	trust, err := r.contents()
	if err != nil {
		a.hub.failed(err)
		return err
	}
	a.trust = trust
	a.publish()
	return nil
}

// Run implements Source.
func (a *acme) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.obtainer.Run(ctx, a.update) })
	a.changing.Lock()
	watched := a.watched
	a.changing.Unlock()
	if watched != nil {
		g.Go(func() error {
			return watched.Run(ctx, func() {
				if err := a.Reload(ctx); err != nil {
					a.log.Warn("changed files cannot be used, keeping what is held", "error", err)
				}
			})
		})
	}
	return g.Wait()
}

func (a *acme) update(cert *tls.Certificate) {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.certificate = cert
	a.publish()
}

// publish must be called with changing held.
func (a *acme) publish() {
	c := a.trust
	c.certificate = a.certificate
	i := c.identity()
	i.challenge = a.obtainer.Challenge
	a.hub.publish(i, c.status(a.cfg, a.now()))
}

// Current implements Source.
func (a *acme) Current() (*Identity, error) {
	i, _ := a.hub.observe()
	return i, loaded(i)
}

// Wait implements Source.
func (a *acme) Wait(ctx context.Context) (*Identity, error) { return a.hub.wait(ctx, loaded) }

func loaded(i *Identity) error {
	if i == nil {
		return fmt.Errorf("%w: the files were not read", ErrNone)
	}
	return nil
}

// Status implements Source.
func (a *acme) Status() Status {
	s := a.hub.status()
	s.Source = a.cfg.describe()
	i, _ := a.hub.observe()
	if s.Err = loaded(i); s.Err == nil && i.certificate == nil {
		s.Err = fmt.Errorf("%w: the authority has issued no certificate", ErrNone)
	}
	return s
}
