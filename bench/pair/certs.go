package pair

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// The SPIFFE IDs of the two sides.
const (
	ServerID = "spiffe://bench.test/server"
	ClientID = "spiffe://bench.test/client"
)

// Cert is the files of one identity.
type Cert struct {
	Cert, Key string // PEM
	Combined  string // both in one
	CA        string // the certificate of the authority
}

// Certs are the identities of all pairs: ECDSA P-256, each with one SPIFFE ID as an X.509-SVID has it, and with localhost and
// 127.0.0.1 for programs that verify a name. Stranger has the client's names, of another authority.
type Certs struct{ Server, Client, Stranger Cert }

// NewCerts makes them below dir, valid for a day.
func NewCerts(dir string) (Certs, error) {
	ours, err := newAuthority(dir, "ca.pem")
	if err != nil {
		return Certs{}, err
	}
	theirs, err := newAuthority(dir, "other-ca.pem")
	if err != nil {
		return Certs{}, err
	}
	var c Certs
	if c.Server, err = ours.issue(dir, "server", ServerID); err != nil {
		return Certs{}, err
	}
	if c.Client, err = ours.issue(dir, "client", ClientID); err != nil {
		return Certs{}, err
	}
	c.Stranger, err = theirs.issue(dir, "stranger", ClientID)
	return c, err
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(dir, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template()
	template.URIs = []*url.URL{{Scheme: "spiffe", Host: "bench.test"}}
	template.Subject.CommonName = name // one that no leaf has: OpenSSL takes a certificate of its issuer's name for self-signed
	template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	a := &authority{key: key, file: filepath.Join(dir, name)}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, os.WriteFile(a.file, block("CERTIFICATE", der), 0o600)
}

func (a *authority) issue(dir, name, id string) (Cert, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Cert{}, err
	}
	uri, err := url.Parse(id)
	if err != nil {
		return Cert{}, err
	}
	template := template()
	template.URIs, template.DNSNames, template.IPAddresses = []*url.URL{uri}, []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return Cert{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Cert{}, err
	}
	base := filepath.Join(dir, name)
	c := Cert{Cert: base + ".crt", Key: base + ".key", Combined: base + ".pem", CA: a.file}
	certPEM, keyPEM := block("CERTIFICATE", der), block("PRIVATE KEY", keyDER)
	for file, text := range map[string][]byte{c.Cert: certPEM, c.Key: keyPEM, c.Combined: append(certPEM, keyPEM...)} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return Cert{}, err
		}
	}
	return c, nil
}

func template() *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // crypto/rand does not fail
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"bench"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true,
	}
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
