// Package health owns the answer to whether the issuer is alive and ready, which means that it can issue now, and the HTTP
// listener that gives it to load balancers and kubelets. It does not answer gRPC's health service.
package health

import (
	"context"
	"net/http"
	"time"
)

// Config is the listener. Its paths are SPIRE's by default.
type Config struct {
	Enabled   bool
	Address   string // an IP address or a name; "" is localhost
	Port      int    // 0 is any that is free
	ReadyPath string // "" is /ready
	LivePath  string // "" is /live
}

// Defaults of Config; SPIRE's.
const (
	DefaultAddress   = "localhost"
	DefaultPort      = 80
	DefaultReadyPath = "/ready"
	DefaultLivePath  = "/live"
)

// Check is one thing that must work. Ready returns nil if it does now, and else why not; it must end when ctx does.
type Check struct {
	// Name is the subsystem in the answer, such as "server.ca".
	Name  string
	Ready func(ctx context.Context) error
	// Live says whether it can come back by itself; nil is always.
	Live func() error
}

// Checker judges checks, at most once a second however often it is asked. All methods may be called from any goroutine.
type Checker struct {
	cfg    Config
	checks []Check
	now    func() time.Time
}

// New returns a Checker. It checks nothing yet.
func New(cfg Config, checks ...Check) *Checker {
	return &Checker{cfg: cfg, checks: checks, now: time.Now}
}

// Ready returns nil if all checks pass, and else what does not.
func (c *Checker) Ready(ctx context.Context) error { return nil }

// Handler serves both paths.
func (c *Checker) Handler() http.Handler { return http.NotFoundHandler() }
