package identity

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/sidecar/identity/keystore"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// contents are what the files of a configuration hold, checked as a whole.
type contents struct {
	certificate *tls.Certificate // nil if the configuration shows none
	svid        *x509svid.SVID   // with TrustBundles, unless it shows none
	bundles     map[spiffeid.TrustDomain]*x509bundle.Bundle
	authorities []*x509.Certificate // of CACert; nil is the system's
	digest      [sha256.Size]byte   // of all bytes read
}

// paths are the files of a configuration.
func (c Config) paths() []string {
	paths := slices.Sorted(maps.Values(c.TrustBundles))
	paths = append(paths, c.Keystore, c.Cert, c.Key)
	if len(c.TrustBundles) == 0 {
		paths = append(paths, c.CACert)
	}
	return slices.DeleteFunc(paths, func(p string) bool { return p == "" })
}

// reading reads the files of a configuration once.
type reading struct {
	cfg Config
	// open returns the private key that belongs to pub, where it is in no file.
	open func(pub crypto.PublicKey) (crypto.Signer, error)
	hash []byte
}

// file returns a file's bytes and what parse makes of them. Errors name the setting.
func file[T any](r *reading, key, path string, parse func([]byte) (T, error)) (out T, err error) {
	data, err := keystore.Read(path)
	if err == nil {
		sum := sha256.Sum256(data)
		r.hash = append(r.hash, sum[:]...)
		out, err = parse(data)
	}
	if err != nil {
		return out, setting.Errorf(key, path, "%w", err)
	}
	return out, nil
}

// contents reads everything. What is wrong is told at once.
func (r *reading) contents() (contents, error) {
	var c contents
	var certErr, trustErr error
	if !r.cfg.None && r.cfg.ACME == (ACME{}) {
		c.certificate, certErr = r.certificate()
	}
	if certErr == nil && c.certificate != nil && r.cfg.spiffe() {
		c.svid, certErr = svidOf(c.certificate)
		certErr = r.aboutCertificate(certErr)
	}
	if r.cfg.spiffe() {
		c.bundles, trustErr = r.bundles()
	} else if r.cfg.CACert != "" {
		c.authorities, trustErr = file(r, "ca_cert", r.cfg.CACert, parseAuthorities)
	}
	c.digest = sha256.Sum256(r.hash)
	return c, errors.Join(certErr, trustErr)
}

// aboutCertificate names the setting of the certificate in err.
func (r *reading) aboutCertificate(err error) error {
	switch {
	case err == nil:
		return nil
	case r.cfg.Keystore != "":
		return setting.Errorf("keystore", r.cfg.Keystore, "%w", err)
	default:
		return setting.Errorf("cert", r.cfg.Cert, "%w", err)
	}
}

func (r *reading) certificate() (*tls.Certificate, error) {
	var c keystore.Contents
	var err error
	if r.cfg.Keystore != "" {
		c, err = file(r, "keystore", r.cfg.Keystore, func(data []byte) (keystore.Contents, error) {
			return keystore.Parse(r.cfg.Keystore, data, r.cfg.StorePass)
		})
	} else {
		c, err = file(r, "cert", r.cfg.Cert, keystore.ParseCertificates)
	}
	if r.cfg.Key != "" {
		var keyErr error
		c.Key, keyErr = file(r, "key", r.cfg.Key, keystore.ParseKey)
		err = errors.Join(err, keyErr)
	}
	if err != nil {
		return nil, err
	}
	if len(c.Certificates) == 0 {
		return nil, r.aboutCertificate(errors.New("holds no certificate"))
	}
	if r.cfg.PKCS11 != (PKCS11{}) {
		if c.Key, err = r.open(c.Certificates[0].PublicKey); err != nil {
			return nil, setting.Errorf("pkcs11_module", r.cfg.PKCS11.Module, "%w", err)
		}
	}
	cert, err := pair(c)
	return cert, r.aboutCertificate(err)
}

// pair joins a chain and its private key, leaf first, as crypto/tls takes them.
func pair(c keystore.Contents) (*tls.Certificate, error) {
	if c.Key == nil {
		return nil, errors.New("holds no private key")
	}
	leaf := slices.IndexFunc(c.Certificates, func(cert *x509.Certificate) bool {
		pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		return ok && pub.Equal(c.Key.Public())
	})
	if leaf < 0 {
		return nil, errors.New("the private key belongs to none of its certificates: give the two that belong together")
	}
	cert := &tls.Certificate{PrivateKey: c.Key, Leaf: c.Certificates[leaf], Certificate: [][]byte{c.Certificates[leaf].Raw}}
	for i, other := range c.Certificates {
		if i != leaf {
			cert.Certificate = append(cert.Certificate, other.Raw)
		}
	}
	return cert, nil
}

// svidOf returns cert as the X.509-SVID it is (X.509-SVID, sections 2, 4 and 5). Of an X.509-SVID in files nothing less is
// asked than of one from the Workload API, but its private key need not be in memory.
func svidOf(cert *tls.Certificate) (*x509svid.SVID, error) {
	id, err := x509svid.IDFromCert(cert.Leaf)
	usage := cert.Leaf.KeyUsage
	switch {
	case err != nil:
		return nil, fmt.Errorf("trust bundles need an X.509-SVID: %w", err)
	case id.Path() == "":
		return nil, fmt.Errorf("%s names a trust domain, not a workload: this is no X.509-SVID", id)
	case cert.Leaf.IsCA, usage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return nil, fmt.Errorf("%s may sign certificates or lists: this is no X.509-SVID of a workload", id)
	case usage&x509.KeyUsageDigitalSignature == 0:
		return nil, fmt.Errorf("%s lacks the key usage digitalSignature: this is no X.509-SVID", id)
	}
	svid := &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{cert.Leaf}, PrivateKey: cert.PrivateKey.(crypto.Signer)}
	for _, der := range cert.Certificate[1:] {
		signer, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		if !signer.IsCA || signer.KeyUsage&x509.KeyUsageCertSign == 0 {
			return nil, fmt.Errorf("certificate %q after that of %s may not sign any: this is no chain of an X.509-SVID", signer.Subject, id)
		}
		svid.Certificates = append(svid.Certificates, signer)
	}
	return svid, nil
}

func (r *reading) bundles() (map[spiffeid.TrustDomain]*x509bundle.Bundle, error) {
	all := map[spiffeid.TrustDomain]*x509bundle.Bundle{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(r.cfg.TrustBundles)) {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return nil, err // Validate has said so
		}
		all[td], err = file(r, "trust_bundle", r.cfg.TrustBundles[name], func(data []byte) (*x509bundle.Bundle, error) {
			return parseBundle(td, data)
		})
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}

// parseBundle reads a SPIFFE bundle (JWKS; SPIFFE Trust Domain and Bundle, section 4) or PEM certificates.
func parseBundle(td spiffeid.TrustDomain, data []byte) (*x509bundle.Bundle, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		b, err := spiffebundle.Parse(td, data)
		if err != nil {
			return nil, fmt.Errorf("as the SPIFFE bundle of %s: %w", td, err)
		}
		if len(b.X509Authorities()) == 0 {
			return nil, fmt.Errorf("the SPIFFE bundle of %s has no X.509 authority", td)
		}
		return b.X509Bundle(), foreign(td, b.X509Authorities())
	}
	authorities, err := parseAuthorities(data)
	if err != nil {
		return nil, fmt.Errorf("as the bundle of %s: %w", td, err)
	}
	return x509bundle.FromX509Authorities(td, authorities), foreign(td, authorities)
}

// foreign returns an error about the first authority that says it is another trust domain's (X.509-SVID, section 3.1). One
// file for all trust domains would let each of them vouch for the others.
func foreign(td spiffeid.TrustDomain, authorities []*x509.Certificate) error {
	for _, a := range authorities {
		for _, uri := range a.URIs {
			if id, err := spiffeid.FromURI(uri); err == nil && id.TrustDomain() != td {
				return fmt.Errorf("as the bundle of %s: there is an authority of trust domain %s in it, which could vouch for everybody in %s: give each its own file",
					td, id.TrustDomain(), td)
			}
		}
	}
	return nil
}

func parseAuthorities(data []byte) ([]*x509.Certificate, error) {
	c, err := keystore.ParseCertificates(data)
	if err == nil && len(c.Certificates) == 0 {
		err = errors.New("holds no PEM certificate")
	}
	return c.Certificates, err
}
