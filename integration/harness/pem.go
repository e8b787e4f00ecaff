package harness

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// CertSpec is one certificate to make. With an ID it is shaped as an X.509-SVID, with DNSNames, IPs or a CommonName as
// a certificate of the web; it may be both.
type CertSpec struct {
	Name     string   // of the files; unique in the authority, or the files are replaced
	IDs      []string // URI SANs; an SVID has exactly one
	DNSNames []string
	IPs      []string
	CN       string
	OU       []string
	RSA      bool      // a 2048-bit RSA key instead of P-256
	NotAfter time.Time // an hour from now if zero; NotBefore is a minute ago, or an hour before a NotAfter in the past
}

// CertFiles are the paths of one identity.
type CertFiles struct {
	Cert     string // the chain, leaf first
	Key      string // PKCS#8
	Combined string // key and chain in one file
	CA       string // the authority's certificate
}

// Authority is a throwaway CA whose files are below a directory; it needs no issuer and no agent.
type Authority struct {
	t      T
	dir    string
	domain string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey

	CA   string // the certificate, PEM
	JWKS string // the same as the SPIFFE bundle of its trust domain
}

// PEMFiles makes one authority and a certificate for each spec, in a directory that goes with the test.
func PEMFiles(t T, specs ...CertSpec) []CertFiles {
	t.Helper()
	dir, err := os.MkdirTemp("", "lypem")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ca := NewAuthority(t, dir, "files.test")
	var made []CertFiles
	for _, spec := range specs {
		made = append(made, ca.Issue(spec))
	}
	return made
}

// NewAuthority makes the CA of a trust domain, valid for a day, with its files in dir.
func NewAuthority(t T, dir, domain string) *Authority {
	t.Helper()
	a := &Authority{t: t, dir: dir, domain: domain, CA: filepath.Join(dir, domain+".pem"), JWKS: filepath.Join(dir, domain+".json")}
	td, err := spiffeid.TrustDomainFromString(domain)
	a.check(err)
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.check(err)
	template := &x509.Certificate{
		SerialNumber: a.serial(), Subject: pkix.Name{Organization: []string{"harness"}, CommonName: domain},
		URIs: []*url.URL{td.ID().URL()}, NotBefore: time.Now().Add(-12 * time.Hour), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	a.check(err)
	a.cert, err = x509.ParseCertificate(der)
	a.check(err)
	a.write(a.CA, "CERTIFICATE", der)
	jwks, err := spiffebundle.FromX509Authorities(td, []*x509.Certificate{a.cert}).Marshal()
	a.check(err)
	a.check(os.WriteFile(a.JWKS, jwks, 0o600))
	return a
}

// Issue signs a certificate for a new key, and writes its files; those of the same name are replaced one by one.
func (a *Authority) Issue(spec CertSpec) CertFiles {
	a.t.Helper()
	key := a.newKey(spec.RSA)
	der, err := x509.CreateCertificate(rand.Reader, a.template(spec), a.cert, key.Public(), a.key)
	a.check(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	a.check(err)
	base := filepath.Join(a.dir, spec.Name)
	files := CertFiles{Cert: base + ".crt", Key: base + ".key", Combined: base + ".pem", CA: a.CA}
	a.write(files.Cert, "CERTIFICATE", der)
	a.write(files.Key, "PRIVATE KEY", keyDER)
	a.write(files.Combined, "PRIVATE KEY", keyDER, "CERTIFICATE", der)
	return files
}

func (a *Authority) template(spec CertSpec) *x509.Certificate {
	a.t.Helper()
	notAfter := spec.NotAfter
	if notAfter.IsZero() {
		notAfter = time.Now().Add(time.Hour)
	}
	notBefore := time.Now().Add(-time.Minute)
	if notAfter.Before(time.Now()) {
		notBefore = notAfter.Add(-time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: a.serial(), DNSNames: spec.DNSNames, NotBefore: notBefore, NotAfter: notAfter,
		Subject:     pkix.Name{Country: []string{"US"}, Organization: []string{"harness"}, CommonName: spec.CN, OrganizationalUnit: spec.OU},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	for _, id := range spec.IDs {
		uri, err := url.Parse(id)
		a.check(err)
		template.URIs = append(template.URIs, uri)
	}
	for _, ip := range spec.IPs {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	return template
}

func (a *Authority) newKey(useRSA bool) crypto.Signer {
	a.t.Helper()
	if useRSA {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		a.check(err)
		return key
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.check(err)
	return key
}

func (a *Authority) serial() *big.Int {
	a.t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	a.check(err)
	return n.Add(n, big.NewInt(1))
}

// write replaces a file by the blocks, given as type and content, at once: a reader sees the old or the new one.
func (a *Authority) write(path string, blocks ...any) {
	a.t.Helper()
	var text []byte
	for i := 0; i < len(blocks); i += 2 {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: blocks[i].(string), Bytes: blocks[i+1].([]byte)})...)
	}
	a.check(os.WriteFile(path+".new", text, 0o600))
	a.check(os.Rename(path+".new", path))
}

func (a *Authority) check(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatalf("%s: %v", a.domain, err)
	}
}
