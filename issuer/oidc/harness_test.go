package oidc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// bundle is the JWT authorities of a trust domain.
type bundle struct {
	mu   sync.Mutex
	keys []*types.JWTKey
}

func (b *bundle) list() []*types.JWTKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys
}

func (b *bundle) set(keys ...*types.JWTKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys = keys
}

// authority signs as an issuer's JWT authority does.
type authority struct {
	id  string
	key crypto.Signer
	alg jose.SignatureAlgorithm
}

func newAuthority(t *testing.T, id string, alg jose.SignatureAlgorithm) authority {
	t.Helper()
	a := authority{id: id, alg: alg}
	var err error
	switch alg {
	case jose.ES256:
		a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		a.key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		a.key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// published is the authority as the bundle has it.
func (a authority) published(t *testing.T) *types.JWTKey {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(a.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &types.JWTKey{KeyId: a.id, PublicKey: der, ExpiresAt: time.Now().Add(time.Hour).Unix()}
}

// sign makes a JWT-SVID with SPIRE's headers and claims.
func (a authority) sign(t *testing.T, issuer, audience string, expires time.Time) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: a.alg, Key: jose.JSONWebKey{Key: a.key, KeyID: a.id}},
		new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(jwt.Claims{
		Subject:  "spiffe://lanyard.test/web",
		Issuer:   issuer,
		Audience: jwt.Audience{audience},
		Expiry:   jwt.NewNumericDate(expires),
		IssuedAt: jwt.NewNumericDate(expires.Add(-5 * time.Minute)),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// site is where the documents are served over TLS under a name.
type site struct {
	ca        *testca.CA
	cert, key string
	bundle    *bundle
	log       *logBuffer
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{
		ca:     testca.New(t, "web.test"),
		cert:   filepath.Join(dir, "cert.pem"),
		key:    filepath.Join(dir, "key.pem"),
		bundle: &bundle{},
		log:    &logBuffer{},
	}
	s.renew(t)
	return s
}

// renew writes a new pair of files, and returns the certificate.
func (s *site) renew(t *testing.T) *x509.Certificate {
	t.Helper()
	leaf, key := s.ca.Leaf(t, testca.Host("oidc.test"))
	for name, data := range map[string][]byte{s.cert: testca.PEM(leaf), s.key: testca.KeyPEM(t, key)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return leaf
}

func (s *site) config() Config {
	return Config{
		Domains:  []string{"oidc.test"},
		Listen:   "127.0.0.1:0",
		CertFile: s.cert,
		KeyFile:  s.key,
		Keys:     s.bundle.list,
		Log:      slog.New(slog.NewTextHandler(s.log, nil)),
	}
}

// client is one that finds every name at addr and trusts the site's authority.
func (s *site) client(t *testing.T, addr net.Addr) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.Cert)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, addr.Network(), addr.String())
		},
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// run serves cfg until the test ends.
func run(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

// logBuffer is a log that is written while it is read.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
