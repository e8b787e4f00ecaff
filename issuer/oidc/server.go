package oidc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

// Bounds on what clients can hold of this process. An answer is a few KiB, and its client needs it once in a while.
const (
	maxConnections = 512
	maxHeaders     = 16 << 10 // bytes
	readTimeout    = 10 * time.Second
	writeTimeout   = 10 * time.Second
	idleTimeout    = 30 * time.Second
	drainTimeout   = 5 * time.Second
)

// Server serves the two documents.
type Server struct {
	cfg      Config
	handler  http.Handler
	cert     *certificate // nil for plain HTTP
	listener net.Listener // set by Listen
}

// New returns a server that doesn't listen yet. It fails if the configuration is not valid.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h, err := newHandler(cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, handler: h}
	if !cfg.Plaintext {
		s.cert = &certificate{certFile: cfg.CertFile, keyFile: cfg.KeyFile, log: cfg.Log, now: cfg.Now}
	}
	return s, nil
}

// Handler is what the server answers with, for who has a listener already.
func (s *Server) Handler() http.Handler { return s.handler }

// Listen reads the certificate and binds the listener; who connects waits for Run. Without Run, Close ends it.
func (s *Server) Listen(ctx context.Context) error {
	if s.cert != nil {
		if err := s.cert.look(); err != nil {
			return err
		}
	}
	if socket, ok := strings.CutPrefix(s.cfg.listen(), unixScheme); ok {
		l, err := unixsock.Listen(socket, 0o666) // public, like the documents: for a proxy of any user
		if err != nil {
			return err
		}
		s.listener = l
		return nil
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", s.cfg.listen())
	if err != nil {
		return fmt.Errorf("cannot serve on %s: %w", s.cfg.listen(), err)
	}
	s.listener = l
	return nil
}

// Addr is where the server listens; nil before Listen.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Close ends a listener that Run was not called with.
func (s *Server) Close() error {
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}

// Run serves until ctx is done, and returns nil then; or until the listener fails. Requests in progress get 5 s to end.
// It listens first, if Listen was not called.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	server := s.server()
	if s.cert != nil {
		others.Go(func() { s.cert.watch(ctx) })
	}
	others.Go(func() {
		<-ctx.Done()
		drain, stop := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer stop()
		if server.Shutdown(drain) != nil {
			server.Close() // who has had their time
		}
	})
	limited := netutil.LimitListener(s.listener, maxConnections)
	serve := func() error { return server.Serve(limited) }
	if s.cert != nil {
		serve = func() error { return server.ServeTLS(limited, "", "") }
	}
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("oidc: %w", err)
	}
	return nil
}

func (s *Server) server() *http.Server {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaders,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug), // strangers' failed handshakes
	}
	if s.cert != nil {
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.cert.get}
	}
	return server
}

// watch looks at the files without a client, so that a pair that can't be used is told when it comes.
func (c *certificate) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.look() // fails only without a pair, which Listen has seen to
		case <-ctx.Done():
			return
		}
	}
}

// watchInterval is between looks at the certificate's files when no client comes.
const watchInterval = 10 * time.Second
