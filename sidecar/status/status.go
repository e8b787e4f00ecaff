// Package status owns GET /_status: whether this sidecar can serve, and with
// which identity. It decides nothing and has no way to change anything.
package status

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

// Path is the one path served; ghostunnel's.
const Path = "/_status"

// Config is what there is to tell.
type Config struct {
	// Identity tells about the identity held.
	Identity func() identity.Status
	// Open is how many connections there are.
	Open func() int64
	// Listen and Target are the addresses, as configured.
	Listen, Target string
	// DialTarget, if set, is tried at each request: without its target, a server
	// is not healthy. It must be cheap for the target.
	DialTarget func(context.Context) (net.Conn, error)
	// Timeout bounds the dial.
	Timeout time.Duration
}

// Handler serves Path. It starts as initializing.
type Handler struct {
	cfg   Config
	phase atomic.Value // string
}

// New returns a Handler for cfg.
func New(cfg Config) *Handler {
	h := &Handler{cfg: cfg}
	h.phase.Store("initializing")
	return h
}

// Listening says that connections are accepted from now on.
func (h *Handler) Listening() { h.phase.Store("listening") }

// Stopping says that no more connections are accepted.
func (h *Handler) Stopping() { h.phase.Store("stopping") }

// Response is the answer, as JSON. The first block has ghostunnel's names and
// meanings.
type Response struct {
	OK             bool      `json:"ok"`
	Status         string    `json:"status"` // ok or critical
	ListenAddress  string    `json:"listen_address"`
	ForwardAddress string    `json:"forward_address"`
	BackendOK      *bool     `json:"backend_ok,omitempty"` // absent in client mode
	BackendStatus  string    `json:"backend_status,omitempty"`
	BackendError   string    `json:"backend_error,omitempty"`
	Time           time.Time `json:"time"`
	Hostname       string    `json:"hostname,omitempty"`
	Message        string    `json:"message"` // initializing, listening or stopping
	Compiler       string    `json:"compiler"`

	Identity    Identity    `json:"identity"`
	WorkloadAPI WorkloadAPI `json:"workload_api"`
	Connections int64       `json:"connections"` // open now
}

// Identity is the SVID in use.
type Identity struct {
	OK         bool       `json:"ok"` // held, and not expired
	SPIFFEID   string     `json:"spiffe_id,omitempty"`
	NotAfter   *time.Time `json:"not_after,omitempty"`
	LastUpdate *time.Time `json:"last_update,omitempty"`
	Error      string     `json:"error,omitempty"`
}

// WorkloadAPI is the health of its stream.
type WorkloadAPI struct {
	Connected bool   `json:"connected"`
	Error     string `json:"error,omitempty"`
}

// ServeHTTP answers 200 if the sidecar can serve now, else 503.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != Path {
		http.NotFound(w, r)
		return
	}
	resp := h.response(r.Context())
	w.Header().Set("Content-Type", "application/json")
	if !resp.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	// The client may be gone; there is nobody else to tell.
	_ = enc.Encode(resp)
}

func (h *Handler) response(ctx context.Context) Response {
	id := h.cfg.Identity()
	resp := Response{
		ListenAddress: h.cfg.Listen, ForwardAddress: h.cfg.Target,
		Time: time.Now(), Message: h.phase.Load().(string), Compiler: runtime.Version(),
		Identity: Identity{OK: id.Err == nil, SPIFFEID: id.SPIFFEID, NotAfter: set(id.NotAfter),
			LastUpdate: set(id.LastUpdate), Error: text(id.Err)},
		WorkloadAPI: WorkloadAPI{Connected: id.Connected, Error: text(id.ConnectionErr)},
		Connections: h.cfg.Open(),
	}
	if name, err := os.Hostname(); err == nil {
		resp.Hostname = name
	}
	resp.OK = resp.Identity.OK && resp.Message == "listening"
	h.checkBackend(ctx, &resp)
	resp.Status = word(resp.OK)
	return resp
}

func (h *Handler) checkBackend(ctx context.Context, resp *Response) {
	if h.cfg.DialTarget == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	conn, err := h.cfg.DialTarget(ctx)
	if err == nil {
		conn.Close()
	}
	ok := err == nil
	resp.BackendOK, resp.BackendStatus, resp.BackendError = &ok, word(ok), text(err)
	resp.OK = resp.OK && ok
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

func set(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
