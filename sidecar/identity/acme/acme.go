// Package acme owns a certificate from an ACME authority (RFC 8555): it obtains it by TLS-ALPN-01 (RFC 8737) alone, keeps it on
// disk, and renews it in time. The protocol is certmagic's. It listens only where nobody else listens on the challenge's port.
package acme

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

const (
	// attempts is how often the first certificate is asked for, and the waits between these.
	attempts             = 5
	firstWait, longest   = 5 * time.Second, 2 * time.Minute
	letsEncrypt, staging = certmagic.LetsEncryptProductionCA, certmagic.LetsEncryptStagingCA
)

// Options are what tests vary; the zero value is for everybody else.
type Options struct {
	// Storage is the folder for account and certificate; empty is $XDG_DATA_HOME/certmagic, or ~/.local/share/certmagic.
	Storage string
	// Roots verify the authority's own HTTPS; nil is the system's.
	Roots *x509.CertPool
	// FirstWait is the wait after the first attempt; 0 is 5 s. It doubles from attempt to attempt, up to 2 minutes.
	FirstWait time.Duration
	// ListenHost is where the challenge is listened for if nobody else does; empty is all addresses.
	ListenHost string
}

// New returns what gets the certificate of c. It does no I/O.
func New(c identity.ACME, log *slog.Logger) (identity.Obtainer, error) {
	return Options{Storage: c.Storage}.New(c, log)
}

// DefaultStorage is where account and certificate are kept if nothing else is said: where ghostunnel keeps them.
func DefaultStorage() (string, error) {
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("nowhere to keep certificates: %w: set it, or XDG_DATA_HOME", err)
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "certmagic"), nil
}

// New is the function New with options.
func (o Options) New(c identity.ACME, log *slog.Logger) (identity.Obtainer, error) {
	if o.Storage == "" {
		var err error
		if o.Storage, err = DefaultStorage(); err != nil {
			return nil, err
		}
	}
	return &obtainer{cfg: c, opt: o, log: log, obtained: make(chan struct{}, 1)}, nil
}

type obtainer struct {
	cfg      identity.ACME
	opt      Options
	log      *slog.Logger
	magic    atomic.Pointer[certmagic.Config] // nil unless Run runs
	obtained chan struct{}                    // a certificate was stored
}

// Challenge implements identity.Obtainer.
func (o *obtainer) Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	magic := o.magic.Load()
	if magic == nil {
		return nil, errors.New("no ACME challenge is expected")
	}
	return magic.GetCertificate(hello) // tells a probe by the same marks as tlsend does
}

// Run implements identity.Obtainer.
func (o *obtainer) Run(ctx context.Context, update func(*tls.Certificate)) error {
	cache, magic := o.configure(ctx)
	defer cache.Stop()
	o.magic.Store(magic)
	defer o.magic.Store(nil)
	if err := o.first(ctx, magic); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("no certificate for %s from %s: %w", o.cfg.FQDN, o.directory(), err)
	}
	for {
		cert, err := magic.CacheManagedCertificate(ctx, o.cfg.FQDN)
		if err != nil {
			o.log.Error("cannot read the certificate that was obtained", "name", o.cfg.FQDN, "folder", o.opt.Storage, "error", err)
		} else {
			o.log.Info("certificate in use", "name", o.cfg.FQDN, "not_after", cert.Leaf.NotAfter)
			update(&cert.Certificate)
		}
		select {
		case <-o.obtained:
		case <-ctx.Done():
			return nil
		}
	}
}

// first gets the certificate from disk, or else from the authority, which may take several attempts.
func (o *obtainer) first(ctx context.Context, magic *certmagic.Config) error {
	wait := cmp.Or(o.opt.FirstWait, firstWait)
	for attempt := 1; ; attempt++ {
		err := magic.ManageSync(ctx, []string{o.cfg.FQDN})
		if err == nil {
			select { // of what was obtained just now, nobody has to be told again
			case <-o.obtained:
			default:
			}
			return nil
		}
		if attempt == attempts || ctx.Err() != nil {
			return err
		}
		o.log.Warn("no certificate yet, trying again", "name", o.cfg.FQDN, "attempt", attempt, "of", attempts, "wait", wait, "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		wait = min(2*wait, longest)
	}
}

// directory is the authority asked.
func (o *obtainer) directory() string { return cmp.Or(o.cfg.TestCA, o.cfg.CA, letsEncrypt) }

// configure returns what certmagic needs, none of it shared with anything else in this process.
func (o *obtainer) configure(ctx context.Context) (*certmagic.Cache, *certmagic.Config) {
	logger := zap.New(core{context.WithoutCancel(ctx), o.log.Handler()})
	var magic *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return magic, nil },
		RenewCheckInterval: o.cfg.RenewCheckInterval,
		Logger:             logger,
	})
	magic = certmagic.New(cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: o.opt.Storage},
		Logger:  logger,
		OCSP:    certmagic.OCSPConfig{DisableStapling: true}, // a staple would grow old with the version of the identity
		OnEvent: func(_ context.Context, event string, _ map[string]any) error {
			if event == "cert_obtained" {
				select {
				case o.obtained <- struct{}{}:
				default:
				}
			}
			return nil
		},
	})
	magic.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(magic, certmagic.ACMEIssuer{
		CA:                   o.directory(),
		TestCA:               cmp.Or(o.cfg.TestCA, staging),
		Email:                o.cfg.Email,
		Agreed:               o.cfg.AgreeToTOS,
		DisableHTTPChallenge: true,
		AltTLSALPNPort:       o.cfg.AltTLSALPNPort,
		ListenHost:           o.opt.ListenHost,
		TrustedRoots:         o.opt.Roots,
		Logger:               logger,
	})}
	return cache, magic
}
