package metrics

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// One push may take an interval, but never less or more than these.
const (
	minPush = time.Second
	maxPush = 10 * time.Second
)

// Push is how pushes connect. The zero Push connects directly and trusts the
// system's authorities.
type Push struct {
	// Dial replaces net.Dialer's.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is for an https URL, with the authorities to trust.
	TLS *tls.Config
}

// Run pushes the metrics every Config.Interval until ctx ends, and returns nil.
// It returns at once if they are not to be pushed. A receiver that is away is
// tried again at the next interval; what it missed is not repeated.
func (s *Set) Run(ctx context.Context) error {
	var pushes sync.WaitGroup
	if s.cfg.Graphite != "" {
		g := newGraphite(s)
		pushes.Go(func() { s.every(ctx, "graphite", s.cfg.Graphite, g.push) })
		pushes.Go(func() { g.rate(ctx) })
	}
	if s.cfg.URL != "" {
		p := newPoster(s)
		pushes.Go(func() { s.every(ctx, "url", p.shown, p.push) })
	}
	pushes.Wait()
	return nil
}

// every calls push each interval, and logs when it begins to fail and when that is
// over.
func (s *Set) every(ctx context.Context, kind, to string, push func(context.Context) error) {
	log := s.cfg.Log.With(slog.String("kind", kind), slog.String("to", to))
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		pushCtx, cancel := context.WithTimeout(ctx, min(max(s.cfg.Interval, minPush), maxPush))
		err := push(pushCtx)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			log.Warn("metrics cannot be pushed, trying on", "error", err, "interval", s.cfg.Interval)
		case err == nil && failing:
			log.Info("metrics are pushed again")
		}
		failing = err != nil
	}
}

func (p Push) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if p.Dial != nil {
		return p.Dial(ctx, network, addr)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// poster POSTs the metrics as JSON.
type poster struct {
	set    *Set
	url    string
	shown  string // of url, what is no secret
	client *http.Client
}

func newPoster(s *Set) *poster {
	p := &poster{set: s, url: s.cfg.URL, shown: redacted(s.cfg.URL)}
	p.client = &http.Client{
		Transport: &http.Transport{
			DialContext:       s.cfg.Push.dial,
			TLSClientConfig:   s.cfg.Push.TLS,
			DisableKeepAlives: true, // nothing is held for the length of an interval
		},
		// A redirect would make a GET of the POST: it counts as a failure.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p
}

// redacted is what of a URL may be shown: neither its user nor its path and query,
// in which there may be secrets.
func redacted(s string) string {
	if !strings.ContainsAny(s, ":/@?#") {
		return s // a word
	}
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func (p *poster) push(ctx context.Context) error {
	body, err := p.set.JSON()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("malformed URL") // the error would quote it
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			return wrapped.Err // without the URL, which the log line has
		}
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode >= 300 {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}
