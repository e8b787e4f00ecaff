// Package health owns the answer to whether a role is alive and ready, which means that it can do its work now, and the HTTP
// listener that gives it to load balancers and kubelets. It does not answer gRPC's health service.
package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config is the listener. Its paths are SPIRE's by default.
type Config struct {
	Enabled   bool
	Address   string // an IP address or a name of this machine; "" is localhost
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

// ListenAddress is host:port to bind.
func (c Config) ListenAddress() string {
	return net.JoinHostPort(cmp.Or(c.Address, DefaultAddress), strconv.Itoa(c.Port))
}

func (c Config) readyPath() string { return cmp.Or(c.ReadyPath, DefaultReadyPath) }
func (c Config) livePath() string  { return cmp.Or(c.LivePath, DefaultLivePath) }

// Validate reports everything that is wrong, by the keys of health_checks {}.
func (c Config) Validate() error {
	if !c.Enabled {
		return nil
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Port < 0 || c.Port > 65535 {
		wrong("bind_port %d: want 1 to 65535, or 0 for any that is free", c.Port)
	}
	for _, p := range []struct{ key, path string }{{"ready_path", c.readyPath()}, {"live_path", c.livePath()}} {
		if !strings.HasPrefix(p.path, "/") || strings.ContainsAny(p.path, " ?#{}") {
			wrong("%s %q: want a plain path that begins with a slash, such as /ready", p.key, p.path)
		}
	}
	if c.readyPath() == c.livePath() {
		wrong("ready_path and live_path are both %s: a request could not tell which is meant", c.livePath())
	}
	return errors.Join(errs...)
}

// Check is one thing that must work.
type Check struct {
	// Name is the subsystem in the answer, such as "server.ca".
	Name string
	// Ready returns nil if it works now, and else why not. It should end when ctx does; what takes longer is taken for a
	// failure.
	Ready func(ctx context.Context) error
	// Live returns nil if it works, or can come back by itself; a nil Live always does.
	Live func() error
}

const (
	// checkTimeout is the longest that a check may take.
	checkTimeout = 5 * time.Second
	// fresh is how long an answer is given again: with the issuer, a probe of every second costs a signature and a write a second.
	fresh = time.Second
)

// Checker judges checks when it is asked, at most once a second however often that is. All methods may be called from any
// goroutine.
type Checker struct {
	cfg    Config
	log    *slog.Logger
	checks []Check

	judging chan struct{} // holds a token while nobody judges

	mu   sync.Mutex
	last verdict // guarded by mu
}

// verdict is what was found at a time.
type verdict struct {
	at     time.Time // monotonic; zero before the first
	failed map[string]error
}

// New returns a Checker. It checks nothing yet. log may be nil.
func New(cfg Config, log *slog.Logger, checks ...Check) *Checker {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Checker{cfg: cfg, log: log, checks: checks, judging: make(chan struct{}, 1)}
	c.judging <- struct{}{}
	return c
}

// Ready returns nil if all checks pass, and else what does not, a line each.
func (c *Checker) Ready(ctx context.Context) error {
	failed, err := c.judge(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, check := range c.checks {
		if why := failed[check.Name]; why != nil {
			errs = append(errs, fmt.Errorf("%s: %w", check.Name, why))
		}
	}
	return errors.Join(errs...)
}

// judge gives what fails, as found less than a second ago, or now. The error is that of ctx.
func (c *Checker) judge(ctx context.Context) (failed map[string]error, err error) {
	select {
	case <-c.judging:
		defer func() { c.judging <- struct{}{} }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	if !last.at.IsZero() && time.Since(last.at) < fresh {
		return last.failed, nil
	}
	// Whoever asked may hang up; the others wait for the same answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	now := verdict{failed: c.run(ctx), at: time.Now()}
	c.mu.Lock()
	c.last = now
	c.mu.Unlock()
	c.tell(last, now)
	return now.failed, nil
}

// run makes all checks at once. One that does not end in time is left behind.
func (c *Checker) run(ctx context.Context) map[string]error {
	type outcome struct {
		name string
		err  error
	}
	outcomes := make(chan outcome, len(c.checks))
	failed := map[string]error{}
	for _, check := range c.checks {
		failed[check.Name] = fmt.Errorf("no answer within %s", checkTimeout)
		go func() { outcomes <- outcome{check.Name, check.Ready(ctx)} }()
	}
	for range c.checks {
		select {
		case o := <-outcomes:
			if failed[o.name] = o.err; o.err == nil {
				delete(failed, o.name)
			}
		case <-ctx.Done():
			return failed
		}
	}
	return failed
}

// tell logs what changed.
func (c *Checker) tell(before, now verdict) {
	for _, check := range c.checks {
		was, is := before.failed[check.Name], now.failed[check.Name]
		switch {
		case was == nil && is != nil:
			c.log.Warn("not ready", "subsystem", check.Name, "error", is)
		case was != nil && is == nil:
			c.log.Info("ready again", "subsystem", check.Name)
		}
	}
}
