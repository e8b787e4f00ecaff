package status

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
)

// Response is the answer, as JSON. The first block has ghostunnel's names and
// meanings; with several tunnels, it tells about all of them.
type Response struct {
	OK             bool      `json:"ok"`
	Status         string    `json:"status"` // ok or critical
	ListenAddress  string    `json:"listen_address"`
	ForwardAddress string    `json:"forward_address"`
	BackendOK      *bool     `json:"backend_ok,omitempty"` // absent if no target is probed
	BackendStatus  string    `json:"backend_status,omitempty"`
	BackendError   string    `json:"backend_error,omitempty"`
	Time           time.Time `json:"time"`
	LastReload     time.Time `json:"last_reload"` // the last successful one
	Hostname       string    `json:"hostname,omitempty"`
	Message        Phase     `json:"message"`
	Revision       string    `json:"revision"`
	Compiler       string    `json:"compiler"`

	ReloadError string         `json:"reload_error,omitempty"` // of the last reload, if it failed
	Connections int64          `json:"connections"`            // open now
	Tunnels     []TunnelStatus `json:"tunnels"`
	Identity    *Identity      `json:"identity,omitempty"` // the only one
	Identities  []Identity     `json:"identities"`
	Bundles     []Bundle       `json:"bundles"`
	WorkloadAPI *WorkloadAPI   `json:"workload_api,omitempty"`
}

// TunnelStatus is how one tunnel does.
type TunnelStatus struct {
	Name         string `json:"name,omitempty"`
	Direction    string `json:"direction,omitempty"`
	Listen       string `json:"listen"`
	Target       string `json:"target"`
	OK           bool   `json:"ok"` // has an identity, its target answers, and it accepts connections
	Error        string `json:"error,omitempty"`
	Connections  int64  `json:"connections"`
	Handshakes   int64  `json:"handshakes"` // of the connections, those in their handshake
	Draining     bool   `json:"draining,omitempty"`
	BackendOK    *bool  `json:"backend_ok,omitempty"`
	BackendError string `json:"backend_error,omitempty"`
}

// Identity is what a tunnel shows its peers.
type Identity struct {
	OK         bool       `json:"ok"` // held, and not expired
	SPIFFEID   string     `json:"spiffe_id,omitempty"`
	Subject    string     `json:"subject,omitempty"` // of a certificate that is no SVID
	Source     string     `json:"source,omitempty"`
	Tunnels    []string   `json:"tunnels,omitempty"`
	NotAfter   *time.Time `json:"not_after,omitempty"`
	ExpiresIn  *int64     `json:"expires_in,omitempty"` // seconds; negative once expired
	LastUpdate *time.Time `json:"last_update,omitempty"`
	Error      string     `json:"error,omitempty"`
	// SourceError is why there is no news: no stream, or a reload that failed.
	SourceError string `json:"source_error,omitempty"`
}

// Bundle is what peers of a trust domain are verified with.
type Bundle struct {
	TrustDomain string     `json:"trust_domain"` // empty if peers need no SVIDs
	Source      string     `json:"source,omitempty"`
	Authorities int        `json:"authorities"`
	NotAfter    *time.Time `json:"not_after,omitempty"` // of the authority that expires first
	LastUpdate  *time.Time `json:"last_update,omitempty"`
	Age         *int64     `json:"age,omitempty"` // seconds since LastUpdate
}

// WorkloadAPI is the health of its stream, or of the worst of several.
type WorkloadAPI struct {
	Connected bool   `json:"connected"`
	Error     string `json:"error,omitempty"`
}

func (s *Server) response(ctx context.Context) Response {
	now := time.Now()
	resp := Response{Time: now, Revision: s.cfg.Revision, Compiler: runtime.Version(), Tunnels: []TunnelStatus{}, Identities: []Identity{}, Bundles: []Bundle{}}
	if name, err := os.Hostname(); err == nil {
		resp.Hostname = name
	}
	s.mu.Lock()
	resp.Message, resp.LastReload, resp.ReloadError = s.phase, s.lastReload, text(s.reloadErr)
	s.mu.Unlock()
	failed := resp.identities(s.cfg.identities(), now)
	tunnels := s.cfg.tunnels()
	resp.tunnels(tunnels, probeAll(ctx, tunnels), failed)
	resp.OK = resp.Message == Listening || resp.Message == Reloading
	for _, t := range resp.Tunnels {
		resp.OK = resp.OK && t.OK
	}
	resp.Status = word(resp.OK)
	return resp
}

func (c Config) tunnels() []Tunnel {
	if c.Tunnels == nil {
		return nil
	}
	return c.Tunnels()
}

func (c Config) identities() []metrics.IdentityStatus {
	if c.Identities == nil {
		return nil
	}
	return c.Identities()
}

// tunnels fills in the tunnels and what follows from all of them. probed has the
// result for each.
func (r *Response) tunnels(list []Tunnel, probed []error, failed map[string]error) {
	var listens, targets []string
	var down []error
	isProbed := false
	for i, t := range list {
		one := TunnelStatus{Name: t.Name, Direction: string(t.Direction), Listen: t.Listen, Target: t.Target,
			Connections: t.Connections, Handshakes: t.Handshakes, Draining: t.Draining, Error: text(failed[t.Name])}
		one.OK = !t.Draining && one.Error == "" && probed[i] == nil
		if t.Probe != nil {
			isProbed = true
			ok := probed[i] == nil
			one.BackendOK, one.BackendError = &ok, text(probed[i])
			down = append(down, named(t.Name, probed[i]))
		}
		r.Tunnels = append(r.Tunnels, one)
		r.Connections += t.Connections
		listens, targets = append(listens, t.Listen), append(targets, t.Target)
	}
	r.ListenAddress, r.ForwardAddress = strings.Join(listens, ","), strings.Join(targets, ",")
	if isProbed {
		err := errors.Join(down...)
		ok := err == nil
		r.BackendOK, r.BackendStatus, r.BackendError = &ok, word(ok), text(err)
	}
}

// probeAll probes the targets, all at once, and returns the result for each.
func probeAll(ctx context.Context, list []Tunnel) []error {
	errs := make([]error, len(list))
	var probes sync.WaitGroup
	for i, t := range list {
		if t.Probe != nil {
			probes.Go(func() { errs[i] = t.Probe.Check(ctx) })
		}
	}
	probes.Wait()
	return errs
}
