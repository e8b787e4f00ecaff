package status

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"
)

// What a client of the port may take; ghostunnel's.
const (
	readTimeout  = 30 * time.Second
	writeTimeout = 30 * time.Second // ghostunnel has none
	idleTimeout  = 2 * time.Minute
)

func (s *Server) routes() {
	live := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
	s.mux.Handle(Path, bounded(http.HandlerFunc(s.serveStatus)))
	s.mux.Handle(PathLive, bounded(http.HandlerFunc(live)))
	for path, h := range s.cfg.Metrics {
		s.mux.Handle(path, bounded(h))
	}
	if s.cfg.Shutdown != nil {
		s.mux.Handle(PathShutdown, bounded(localOnly(http.HandlerFunc(s.serveShutdown))))
	}
	if s.cfg.PProf {
		for path, h := range map[string]http.HandlerFunc{"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile,
			"symbol": pprof.Symbol, "trace": pprof.Trace} {
			s.mux.Handle(pathPProf+path, localOnly(h))
		}
	}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// serveStatus answers 200 if the sidecar can serve now, else 503.
func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) {
	resp := s.response(r.Context())
	w.Header().Set("Content-Type", "application/json")
	if !resp.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	// The client may be gone; there is nobody else to tell.
	_ = enc.Encode(resp)
}

func (s *Server) serveShutdown(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "use POST", http.StatusMethodNotAllowed)
		return
	}
	// A web page in a browser on this host can send a POST here, too.
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	s.cfg.Log.Info("shutdown was requested on the status port", "client", r.RemoteAddr)
	s.cfg.Shutdown()
}

// bounded ends an answer that its client does not take. Profiles take as long as
// they are asked to.
func bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// An error says that there is no connection, as in a test.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
		h.ServeHTTP(w, r)
	})
}

// localOnly refuses clients that are not on this host: the port may have to be
// open to others for its metrics, and knows nobody.
func localOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local, _ := r.Context().Value(localKey{}).(bool); !local {
			http.Error(w, r.URL.Path+" is for clients on this host", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

type (
	localKey  struct{} // whether the client is on this host, a bool
	serverKey struct{} // the context that lives as long as the server
)

func isLocal(addr net.Addr) bool {
	if addr.Network() == "unix" {
		return true
	}
	ap, err := netip.ParseAddrPort(addr.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// serverContext returns the context of the server that ctx is a request's of;
// ctx itself if there is none.
func serverContext(ctx context.Context) context.Context {
	if server, ok := ctx.Value(serverKey{}).(context.Context); ok {
		return server
	}
	return ctx
}

// Serve answers on l until ctx ends, and closes l. Requests under way then get a
// moment to be answered. The error is why it could not go on.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:     s,
		BaseContext: func(net.Listener) context.Context { return context.WithValue(ctx, serverKey{}, ctx) },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, localKey{}, isLocal(c.RemoteAddr()))
		},
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := s.serve(server, l)
	if stop() {
		return fmt.Errorf("status server on %s: %w", l.Addr(), err)
	}
	<-closed
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) serve(server *http.Server, l net.Listener) error {
	if s.cfg.GetCertificate == nil {
		return server.Serve(l)
	}
	server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.cfg.GetCertificate}
	return server.ServeTLS(l, "", "")
}

func word(ok bool) string {
	if ok {
		return "ok"
	}
	return "critical"
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func named(tunnel string, err error) error {
	if err == nil || tunnel == "" {
		return err
	}
	return fmt.Errorf("tunnel %q: %w", tunnel, err)
}

func set(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
