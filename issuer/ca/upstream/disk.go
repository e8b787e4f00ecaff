package upstream

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// DiskConfig names the files of an authority, in PEM.
type DiskConfig struct {
	// CertFile has the certificate that signs, then its intermediates.
	CertFile string
	KeyFile  string // PKCS #8, PKCS #1 or SEC 1, without a passphrase
	// BundleFile has the roots; empty if the certificate is its own root. As with
	// SPIRE it need not be self-signed for that, but some verifiers then want it to.
	BundleFile string
	Now        func() time.Time // nil is time.Now
}

// Disk is an authority in files. It implements [ca.Parent].
type Disk struct{ cfg DiskConfig }

// NewDisk returns a Disk. It reads the files each time it certifies, so that
// they can be renewed in place.
func NewDisk(cfg DiskConfig) *Disk {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Disk{cfg: cfg}
}

// pair is what the files hold.
type pair struct {
	chain []*x509.Certificate // without the root
	signs *x509.Certificate
	key   crypto.Signer
	roots []*x509.Certificate
}

// Check reads the files and reports what is wrong with them.
func (d *Disk) Check() error {
	_, err := d.load()
	return err
}

// Certify implements [ca.Parent]: the certificate ends with that of the file, at
// the latest.
func (d *Disk) Certify(_ context.Context, req ca.CertifyRequest) (ca.Certified, error) {
	p, err := d.load()
	if err != nil {
		return ca.Certified{}, fmt.Errorf("upstream authority disk: %w", err)
	}
	template := *req.Template
	if template.NotAfter.After(p.signs.NotAfter) {
		template.NotAfter = p.signs.NotAfter
	}
	template.AuthorityKeyId = p.signs.SubjectKeyId
	der, err := x509.CreateCertificate(rand.Reader, &template, p.signs, req.Key.Public(), p.key)
	if err != nil {
		return ca.Certified{}, fmt.Errorf("upstream authority disk: sign with %s: %w", d.cfg.KeyFile, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return ca.Certified{}, err
	}
	certified := ca.Certified{Chain: append([]*x509.Certificate{cert}, p.chain...)}
	for _, root := range p.roots {
		certified.Roots = append(certified.Roots, ca.Root{Certificate: root})
	}
	return certified, nil
}

// load reads the files and holds them against each other.
func (d *Disk) load() (*pair, error) {
	certs, err := readCertificates(d.cfg.CertFile)
	if err != nil {
		return nil, fmt.Errorf("cert_file_path: %w", err)
	}
	p := &pair{signs: certs[0], chain: certs}
	if p.key, err = readKey(d.cfg.KeyFile); err != nil {
		return nil, fmt.Errorf("key_file_path: %w", err)
	}
	public, ok := p.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(p.signs.PublicKey) {
		return nil, fmt.Errorf("the key of %s is not that of the first certificate of %s: the certificate that signs comes first", d.cfg.KeyFile, d.cfg.CertFile)
	}
	if d.cfg.BundleFile == "" {
		if len(certs) != 1 {
			return nil, fmt.Errorf("%s has %d certificates: without bundle_file_path it must have one, which is its own root", d.cfg.CertFile, len(certs))
		}
		p.roots = certs
	} else if p.roots, err = readCertificates(d.cfg.BundleFile); err != nil {
		return nil, fmt.Errorf("bundle_file_path: %w", err)
	}
	if err := d.check(p); err != nil {
		return nil, err
	}
	p.chain = withoutRoots(certs, p.roots)
	return p, nil
}

// check verifies the chain as of now.
func (d *Disk) check(p *pair) error {
	now := d.cfg.Now()
	if !p.signs.BasicConstraintsValid || !p.signs.IsCA || p.signs.KeyUsage != 0 && p.signs.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("the first certificate of %s may not sign certificates: it lacks CA:TRUE or keyCertSign", d.cfg.CertFile)
	}
	if !now.Before(p.signs.NotAfter) {
		return fmt.Errorf("the first certificate of %s expired at %s: renew it", d.cfg.CertFile, p.signs.NotAfter.Format(time.RFC3339))
	}
	opts := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, root := range p.roots {
		opts.Roots.AddCert(root)
	}
	for _, cert := range p.chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := p.signs.Verify(opts); err != nil {
		return fmt.Errorf("the chain of %s does not end in a root of %s: %w", d.cfg.CertFile, cmp.Or(d.cfg.BundleFile, "its own"), err)
	}
	return nil
}

// withoutRoots leaves out what verifiers have anyway.
func withoutRoots(chain, roots []*x509.Certificate) []*x509.Certificate {
	var kept []*x509.Certificate
	for _, cert := range chain {
		known := false
		for _, root := range roots {
			known = known || root.Equal(cert)
		}
		if !known {
			kept = append(kept, cert)
		}
	}
	return kept
}
