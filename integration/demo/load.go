package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// leg is one pair of proxies between curl and the web server.
type leg struct {
	name    string
	plain   string // where curl connects
	tls     string // where the server takes mutual TLS
	refusal func(context.Context) (string, error)

	load *harness.Load

	mu      sync.Mutex
	serials map[string]bool // of the server's leaf certificates, as seen on the wire
	oddID   error           // a leaf that is not what it was to be
}

var errSeen = errors.New("seen enough")

// look makes one handshake with the leg's server up to its certificate, and remembers the serial.
func (l *leg) look(ctx context.Context, wantID string) {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Second}, Config: &tls.Config{
		InsecureSkipVerify: true, // it only looks, and hangs up before it says anything
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			l.mu.Lock()
			defer l.mu.Unlock()
			l.serials[leaf.SerialNumber.String()] = true
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != wantID {
				l.oddID = fmt.Errorf("the %s' server showed %v, want %s", l.name, leaf.URIs, wantID)
			}
			return errSeen
		},
	}}
	if conn, err := dialer.DialContext(ctx, "tcp", l.tls); err == nil {
		conn.Close()
	}
}

func (l *leg) seen() (serials int, odd error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.serials), l.oddID
}

// underLoad sends requests through each leg until every leg's SVID has rotated often enough, kills the issuer
// meanwhile, and starts it again.
func (s *stage) underLoad() {
	s.title("5. %d requests a second through each pair, half of them on new connections", perSecond)
	s.say("SVIDs live %v; the issuer will be killed and started again", svidLife)
	ctx, stop := context.WithCancel(s.Context())
	var looking sync.WaitGroup
	defer func() {
		stop()
		looking.Wait()
		for _, leg := range s.legs {
			leg.load.Stop()
		}
	}()
	for _, leg := range s.legs {
		leg.serials = map[string]bool{}
		leg.load = harness.StartLoad(ctx, leg.plain, perSecond)
		looking.Go(func() { s.watch(ctx, leg) })
	}
	begun := time.Now()
	until := func(d time.Duration) { s.wait(time.Until(begun.Add(d))) }
	until(5 * time.Second)
	s.progress(begun)
	s.killIssuer(begun)
	for at := 10 * time.Second; ; at += 5 * time.Second {
		until(min(at, max(s.set.patience, minLoad/2)))
		s.progress(begun)
		if passed := time.Since(begun); passed >= s.set.patience || passed >= minLoad && s.rotatedEnough() {
			return
		}
	}
}

// watch looks at the leg's server certificate twice a second.
func (s *stage) watch(ctx context.Context, l *leg) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		l.look(ctx, s.webID)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// wait lets the load go on; an interrupt ends the demo.
func (s *stage) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.Context().Done():
		s.Fatalf("interrupted")
	}
}

func (s *stage) progress(begun time.Time) {
	var parts []string
	for _, leg := range s.legs {
		count := leg.load.Count()
		serials, _ := leg.seen()
		parts = append(parts, fmt.Sprintf("%s: %d requests, %d failed, %d SVIDs", leg.name, count.Requests, count.Failed, serials))
	}
	s.say("%3.0f s  %s", time.Since(begun).Seconds(), strings.Join(parts, "; "))
}

// killIssuer ends the issuer as a crash would, and starts it again on what it had written.
func (s *stage) killIssuer(begun time.Time) {
	entries := len(s.EntryIDs())
	s.Issuer.Kill()
	s.say("%3.0f s  issuer killed (kill -9 %d)", time.Since(begun).Seconds(), s.Issuer.PID())
	s.wait(2 * time.Second)
	if s.set.breaks != "issuer" {
		s.StartIssuer()
	}
	if _, err := s.TryAdmin(s.Context(), "healthcheck"); err != nil {
		s.Fatalf("issuer: it did not come back: %v", err)
	}
	s.say("%3.0f s  issuer started again (pid %d)", time.Since(begun).Seconds(), s.Issuer.PID())
	if after := len(s.EntryIDs()); after != entries {
		s.Fatalf("issuer: it had %d entries, and %d after the restart", entries, after)
	}
}

func (s *stage) rotatedEnough() bool {
	for _, leg := range s.legs {
		if serials, _ := leg.seen(); serials <= minRotations {
			return false
		}
	}
	return true
}

// summary prints what was counted, and fails if a count is not what it was to be.
func (s *stage) summary() {
	s.title("Summary")
	s.say("%-10s %10s %12s %8s %22s", "", "requests", "on new conns", "failed", "distinct leaf serials")
	var bad []string
	for _, leg := range s.legs {
		count := leg.load.Count()
		serials, odd := leg.seen()
		s.say("%-10s %10d %12d %8d %22d", leg.name, count.Requests, count.NewConns, count.Failed, serials)
		if count.Failed > 0 || count.Requests == 0 {
			bad = append(bad, fmt.Sprintf("%s: %d of %d requests failed, first %q", leg.name, count.Failed, count.Requests, count.Failures))
		}
		if rotations := serials - 1; rotations < minRotations {
			bad = append(bad, fmt.Sprintf("rotation: %d of at least %d seen on the %s' leg", max(rotations, 0), minRotations, leg.name))
		}
		if odd != nil {
			bad = append(bad, odd.Error())
		}
	}
	for _, refusal := range s.refusals {
		s.say("refused    %s", refusal)
	}
	s.say("issuer     killed and started again; all entries are there")
	if len(bad) > 0 {
		s.Fatalf("%s", strings.Join(bad, "; "))
	}
}
