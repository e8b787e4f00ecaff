package identity

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/sidecar/identity/filewatch"
)

// files is the Source of what files hold: certificates, keystores, bundles.
type files struct {
	cfg    Config
	log    *slog.Logger
	now    func() time.Time
	pkcs11 func(PKCS11, crypto.PublicKey) (crypto.Signer, error)

	reading sync.Mutex       // held while files are read, one reading at a time; guards the next three
	signer  crypto.Signer    // of PKCS11; nil until it is open
	digest  [32]byte         // of what was read last and good
	watched *filewatch.Files // what the files looked like before the first reading; nil unless they are watched

	hub hub
}

func newFiles(c Config, d Deps) *files {
	return &files{cfg: c, log: d.Log, now: d.Now, pkcs11: d.PKCS11, hub: newHub()}
}

// Load implements Source.
func (f *files) Load(context.Context) error {
	f.reading.Lock()
	if f.cfg.Watch {
		f.watched = filewatch.New(f.log, f.cfg.paths()...)
	}
	f.reading.Unlock()
	return f.read(always)
}

// Reload implements Source.
func (f *files) Reload(context.Context) error { return f.read(always) }

// Whether a reading makes a new version even of what is the same.
const (
	always       = true
	ifItsAnother = false
)

// read makes a new version of what the files hold, if all of it is good.
func (f *files) read(evenIfSame bool) error {
	f.reading.Lock()
	defer f.reading.Unlock()
	r := &reading{cfg: f.cfg, open: f.open}
	c, err := r.contents()
	if err != nil {
		f.hub.failed(err)
		return err
	}
	if c.digest == f.digest && !evenIfSame {
		f.hub.succeeded(f.now())
		return nil
	}
	f.digest = c.digest
	f.hub.publish(c.identity(), c.status(f.cfg, f.now()))
	return nil
}

// open returns the key in the PKCS#11 module. It is opened once: to find it again would be slow, and could go wrong.
func (f *files) open(pub crypto.PublicKey) (crypto.Signer, error) {
	if f.signer != nil {
		if held, ok := f.signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !held.Equal(pub) {
			return nil, errors.New("the certificate has another public key than the one before: restart to use another private key")
		}
		return f.signer, nil
	}
	signer, err := f.pkcs11(f.cfg.PKCS11, pub)
	f.signer = signer
	return signer, err
}

// Run implements Source.
func (f *files) Run(ctx context.Context) error {
	defer f.close()
	f.reading.Lock()
	watched := f.watched
	f.reading.Unlock()
	if watched == nil {
		<-ctx.Done()
		return nil
	}
	return watched.Run(ctx, func() {
		if err := f.read(ifItsAnother); err != nil {
			// Of two files, one is written first: this may mend itself at the next change.
			f.log.Warn("changed files cannot be used, keeping what is held", "error", err)
			return
		}
		f.log.Info("certificate files read again", "source", f.cfg.describe(), "not_after", f.Status().NotAfter)
	})
}

func (f *files) close() {
	f.reading.Lock()
	defer f.reading.Unlock()
	if c, ok := f.signer.(io.Closer); ok {
		if err := c.Close(); err != nil {
			f.log.Warn("cannot close the PKCS#11 module", "error", err)
		}
	}
}

// Current implements Source.
func (f *files) Current() (*Identity, error) {
	i, _ := f.hub.observe()
	return i, f.usable(i)
}

// Wait implements Source.
func (f *files) Wait(ctx context.Context) (*Identity, error) {
	return f.hub.wait(ctx, f.usable)
}

// usable says why an identity can't be shown. An X.509-SVID that has expired is none any more; other certificates are shown
// as long as they are there, as their peers may look at their key alone.
func (f *files) usable(i *Identity) error {
	if i == nil {
		return fmt.Errorf("%w: the files were not read", ErrNone)
	}
	if i.svid != nil && f.now().After(i.svid.Certificates[0].NotAfter) {
		return fmt.Errorf("%w: %s ended at %s", workload.ErrExpired, i.svid.ID, i.svid.Certificates[0].NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// Status implements Source.
func (f *files) Status() Status {
	s := f.hub.status()
	s.Source = f.cfg.describe()
	i, _ := f.hub.observe()
	s.Err = f.usable(i)
	return s
}

func (c contents) identity() *Identity {
	i := &Identity{svid: c.svid, certificate: c.certificate, bundles: c.bundles}
	if c.authorities != nil {
		i.roots = x509.NewCertPool()
		for _, a := range c.authorities {
			i.roots.AddCert(a)
		}
	}
	return i
}

// status tells about contents that were read at now.
func (c contents) status(cfg Config, now time.Time) Status {
	s := Status{LastUpdate: now, Connected: true}
	if c.certificate != nil {
		leaf := c.certificate.Leaf
		s.NotBefore, s.NotAfter = leaf.NotBefore, leaf.NotAfter
		if c.svid != nil {
			s.SPIFFEID = c.svid.ID.String()
		} else {
			s.Subject = leaf.Subject.String()
		}
	}
	switch {
	case cfg.spiffe():
		s.Bundles = bundleStatus(c.bundles, now)
	case c.authorities != nil:
		s.Bundles = []BundleStatus{{Authorities: len(c.authorities), NotAfter: firstExpiry(c.authorities), Updated: now}}
	}
	return s
}

// describe names the source for people.
func (c Config) describe() string {
	switch {
	case c.ACME != (ACME{}):
		return "ACME certificate of " + c.ACME.FQDN
	case c.None:
		return "no certificate"
	case c.Keystore != "":
		return "keystore " + c.Keystore
	case c.PKCS11 != (PKCS11{}):
		return fmt.Sprintf("certificate %s with the private key in %s", c.Cert, c.PKCS11.Module)
	default:
		return fmt.Sprintf("certificate %s with private key %s", c.Cert, c.Key)
	}
}
