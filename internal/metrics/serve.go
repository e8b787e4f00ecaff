package metrics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
)

// maxScrapes is how many scrapes are answered at a time.
const maxScrapes = 4

// Handler serves the metrics.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(filtered{r.registry, r.cfg.Filter}, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelWarn), MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError,
	})
}

// Serve answers on l, which it closes, until ctx ends, and returns nil then.
func (r *Registry) Serve(ctx context.Context, l net.Listener) error {
	if t := r.cfg.Prometheus.TLS; t != nil {
		config, err := r.tls(*t)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		l = tls.NewListener(l, config)
	}
	server := &http.Server{Handler: r.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// tls makes the configuration of the listener.
func (r *Registry) tls(t TLS) (*tls.Config, error) {
	authorize := func(id spiffeid.ID) error {
		if !slices.Contains(t.AuthorizedIDs, id) {
			return errors.New("not among authorized_spiffe_ids")
		}
		return nil
	}
	if r.identity == nil && (t.UseSVID || len(t.AuthorizedIDs) > 0) {
		return nil, errors.New("metrics: there is no SVID to serve with")
	}
	if t.UseSVID && len(t.AuthorizedIDs) > 0 {
		return mtls.Server(r.identity, authorize, mtls.Options{DisableTickets: true}), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, GetCertificate: r.certificate(t)}
	if !t.UseSVID {
		if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil { // better said at the start
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	switch {
	case len(t.AuthorizedIDs) > 0:
		config.ClientAuth = tls.RequireAnyClientCert
		trust := mtls.SVIDs{Bundles: bundles{r.identity}}
		config.VerifyConnection = func(cs tls.ConnectionState) error {
			id, err := trust.Verify(cs.PeerCertificates, time.Now())
			if err != nil {
				return err
			}
			return authorize(id)
		}
	case t.ClientCAFile != "":
		pool, err := readPool(t.ClientCAFile)
		if err != nil {
			return nil, err
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	return config, nil
}

// certificate gives the certificate as it is now: the files are small, and scrapes are seldom.
func (r *Registry) certificate(t TLS) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if !t.UseSVID {
			cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			return &cert, err
		}
		svid, err := r.identity.SVID()
		if err != nil {
			return nil, err
		}
		cert := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
		for _, c := range svid.Certificates {
			cert.Certificate = append(cert.Certificate, c.Raw)
		}
		return cert, nil
	}
}

const maxCAFile = 1 << 20 // bytes

func readPool(file string) (*x509.CertPool, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCAFile))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("metrics: %s has no certificate in PEM", file)
	}
	return pool, nil
}

type bundles struct{ src mtls.Source }

func (b bundles) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return b.src.Bundle(td)
}
