package oidc

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookInterval is between looks at the certificate's files: a new pair is served this long after it was written, at
// latest.
const lookInterval = time.Second

// certificate is a pair of files that is read again when it has changed. The last good pair stays while there is none.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	mu      sync.Mutex
	looked  time.Time
	pair    *tls.Certificate
	certPEM []byte
	keyPEM  []byte
	refused string // the reason told last, so that it is told once
}

// get is the crypto/tls.Config's GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if err := c.look(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pair, nil
}

// look reads the files if it was not done within the last second. It fails only if there never was a good pair.
func (c *certificate) look() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if age := now.Sub(c.looked); c.pair != nil && age >= 0 && age < lookInterval {
		return nil
	}
	c.looked = now
	changed, err := c.read()
	switch {
	case err != nil && c.pair == nil:
		return err
	case err != nil && c.refused != err.Error():
		c.refused = err.Error()
		c.log.Error("cannot use the OIDC server's new certificate; going on with the one before",
			"error", err, "expires", c.pair.Leaf.NotAfter)
	case err == nil:
		if c.refused = ""; changed {
			c.log.Info("serving OIDC with a certificate", "file", c.certFile, "expires", c.pair.Leaf.NotAfter)
		}
	}
	return nil
}

// read takes the files in place of the pair, if they hold another one. They are a few KiB: to read them costs about
// what it would to find out whether one has changed, and misses nothing. mu is held.
func (c *certificate) read() (changed bool, err error) {
	certPEM, err := os.ReadFile(c.certFile)
	if err != nil {
		return false, fmt.Errorf("certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(c.keyFile)
	if err != nil {
		return false, fmt.Errorf("key of the certificate: %w", err)
	}
	if c.pair != nil && bytes.Equal(certPEM, c.certPEM) && bytes.Equal(keyPEM, c.keyPEM) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return false, fmt.Errorf("certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair, c.certPEM, c.keyPEM = &pair, certPEM, keyPEM
	return true, nil
}
