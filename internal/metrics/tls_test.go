package metrics_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/metrics"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// identity is the role's own.
type identity struct {
	svid *x509svid.SVID
	ca   *testca.CA
}

func (i identity) SVID() (*x509svid.SVID, error) { return i.svid, nil }
func (i identity) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return i.ca.Bundle().GetX509BundleForTrustDomain(td)
}

func TestWhoMayScrapeOverTLS(t *testing.T) {
	ca, otherCA := testca.New(t, "example.org"), testca.New(t, "example.org")
	web := testca.New(t, "web.test")
	dir := t.TempDir()
	leaf, key := web.Leaf(t, testca.Host("localhost"))
	cert, keyFile, caFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
	testca.Write(t, cert, testca.PEM(leaf))
	testca.Write(t, keyFile, testca.KeyPEM(t, key))
	bundle, err := web.Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	testca.Write(t, caFile, bundle)

	prometheus := spiffeid.RequireFromString("spiffe://example.org/prometheus")
	good, wrongID := ca.SVID(t, prometheus.String()), ca.SVID(t, "spiffe://example.org/other")
	wrongCA := otherCA.SVID(t, prometheus.String())
	expired := ca.SVID(t, prometheus.String(), testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)))
	clientLeaf, clientKey := web.Leaf(t)
	fromWeb := &tls.Certificate{Certificate: [][]byte{clientLeaf.Raw}, PrivateKey: clientKey}

	for name, tc := range map[string]struct {
		tls       metrics.TLS
		yes, no   []*tls.Certificate
		anonymous bool
	}{
		"certificate":             {metrics.TLS{CertFile: cert, KeyFile: keyFile}, nil, nil, true},
		"own SVID":                {metrics.TLS{UseSVID: true}, nil, nil, true},
		"client authorities":      {metrics.TLS{CertFile: cert, KeyFile: keyFile, ClientCAFile: caFile}, []*tls.Certificate{fromWeb}, []*tls.Certificate{pair(good)}, false},
		"authorized by SVID":      {metrics.TLS{UseSVID: true, AuthorizedIDs: []spiffeid.ID{prometheus}}, []*tls.Certificate{pair(good)}, []*tls.Certificate{pair(wrongID), pair(wrongCA), pair(expired), fromWeb}, false},
		"authorized, certificate": {metrics.TLS{CertFile: cert, KeyFile: keyFile, AuthorizedIDs: []spiffeid.ID{prometheus}}, []*tls.Certificate{pair(good)}, []*tls.Certificate{pair(wrongID), pair(wrongCA), pair(expired), fromWeb}, false},
	} {
		t.Run(name, func(t *testing.T) {
			own := identity{ca.SVID(t, "spiffe://example.org/spire/server"), ca}
			url := serve(t, metrics.NewRegistry(metrics.Config{Prometheus: &metrics.Listener{TLS: &tc.tls}}, metrics.Options{Identity: own}))
			if got := answered(t, url, nil); got != tc.anonymous {
				t.Errorf("a client without a certificate: answered %v", got)
			}
			for i, cert := range tc.yes {
				if !answered(t, url, cert) {
					t.Errorf("good client %d is refused", i)
				}
			}
			for i, cert := range tc.no {
				if answered(t, url, cert) {
					t.Errorf("bad client %d is answered", i)
				}
			}
		})
	}
}

func pair(svid *x509svid.SVID) *tls.Certificate {
	cert := &tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

func serve(t *testing.T, r *metrics.Registry) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "https://" + l.Addr().String()
}

// answered asks with a certificate, twice: a session that is resumed is no way around.
func answered(t *testing.T, url string, cert *tls.Certificate) bool {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	all := true
	for range 2 {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		resp, err := client.Get(url)
		if err != nil {
			all = false
			continue
		}
		resp.Body.Close()
		all = all && resp.StatusCode == http.StatusOK
	}
	return all
}

func TestServeSaysWhichFilesAreMissing(t *testing.T) {
	for _, cfg := range []metrics.TLS{{CertFile: "no-such.pem", KeyFile: "no-such.key"}, {UseSVID: true}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := metrics.NewRegistry(metrics.Config{Prometheus: &metrics.Listener{TLS: &cfg}}, metrics.Options{}).Serve(t.Context(), l); err == nil {
			t.Errorf("served with %+v", cfg)
		}
	}
}
