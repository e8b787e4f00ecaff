// Package status owns the status port: whether this sidecar can serve and with
// which identities, its metrics, and what an operator may do to the process
// through it. It decides nothing about connections.
package status

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// The paths served; Path and PathShutdown are ghostunnel's.
const (
	Path         = "/_status"   // readiness, with its reasons
	PathLive     = "/_live"     // 200 as long as the process answers
	PathShutdown = "/_shutdown" // POST ends the process as SIGTERM does
	pathPProf    = "/debug/pprof/"
)

// Phase is what the sidecar as a whole does. The values are ghostunnel's.
type Phase string

const (
	Initializing Phase = "initializing"
	Listening    Phase = "listening"
	Reloading    Phase = "reloading"
	Stopping     Phase = "stopping"
)

// Config is what there is to tell, and what may be done.
type Config struct {
	// Tunnels and Identities tell about those there are now. They are called for
	// each request and must not block.
	Tunnels    func() []Tunnel
	Identities func() []metrics.IdentityStatus
	// Metrics are handlers by path; see metrics.Set.Handlers.
	Metrics map[string]http.Handler
	// GetCertificate gives the certificate for HTTPS; it fails as long as there is
	// none. If it is nil, plain HTTP is served.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// HeaderTimeout is how long a client may take to send a request's header, and
	// for the TLS handshake; 0 is 10 s.
	HeaderTimeout time.Duration
	// Shutdown begins the graceful end and returns at once; nil: there is no
	// PathShutdown.
	Shutdown func()
	// PProf serves net/http/pprof.
	PProf bool
	// Revision is the version of the program.
	Revision string
	// Changed, if set, is called at each change of the phase, in order; nothing
	// comes after Stopping. It must not call the Server.
	Changed func(Phase)
	Log     *slog.Logger // nil logs nothing
}

// Tunnel is how one tunnel does.
type Tunnel struct {
	Name           string // empty for the only one
	Direction      record.Direction
	Listen, Target string // as configured
	Connections    int64  // open now, those in their handshake included
	Handshakes     int64  // of these, those in their handshake
	Draining       bool   // it is on its way out: no new connections
	Probe          *Probe // of its target; nil if that is not probed
}

// Server serves the status port. The phase changes by its methods, whether it
// serves or not.
type Server struct {
	cfg Config
	mux *http.ServeMux

	mu         sync.Mutex
	phase      Phase     // guarded by mu
	lastReload time.Time // of the last successful one; guarded by mu
	reloadErr  error     // of the last reload; guarded by mu
}

// New returns a Server for cfg, in phase Initializing. It does no I/O.
func New(cfg Config) *Server {
	if cfg.HeaderTimeout <= 0 {
		cfg.HeaderTimeout = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, phase: Initializing, mux: http.NewServeMux()}
	s.routes()
	return s
}

// Listening says that connections are accepted from now on.
func (s *Server) Listening() { s.change(Listening) }

// Reloading says that the configuration is being read again; Reloaded follows.
func (s *Server) Reloading() { s.change(Reloading) }

// Stopping says that no more connections are accepted. It is the last phase.
func (s *Server) Stopping() { s.change(Stopping) }

// Reloaded says that a reload is done, or came to nothing before Reloading; err is
// why all stays as it was.
func (s *Server) Reloaded(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloadErr = err
	if err == nil {
		s.lastReload = time.Now()
	}
	if s.phase == Reloading { // and not while it is initializing still
		s.enter(Listening)
	}
}

func (s *Server) change(to Phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enter(to)
}

// enter changes the phase; s.mu is held, so that Changed is called in order.
func (s *Server) enter(to Phase) {
	if s.phase == Stopping || s.phase == to {
		return
	}
	s.phase = to
	if s.cfg.Changed != nil {
		s.cfg.Changed(to)
	}
}
