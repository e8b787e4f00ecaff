package sidecar_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

const (
	webID = "spiffe://one.test/web"
	dbID  = "spiffe://one.test/db"
	limit = time.Minute // what a test waits for anything at most
)

// spec is a sidecar with one tunnel.
type spec struct {
	sidecar.Tunnel
	WorkloadAPIAddr            string
	SPIFFEID                   spiffeid.ID
	AllowAll                   bool
	AllowURIs, VerifyURIs      []string
	Status                     string
	ShutdownTimeout, DrainIdle time.Duration
}

func (s spec) config() sidecar.Config {
	t := s.Tunnel
	if s.WorkloadAPIAddr != "" {
		t.Identity.WorkloadAPI, t.Identity.SPIFFEID = s.WorkloadAPIAddr, s.SPIFFEID
	}
	if len(t.Policy.Pins) == 0 {
		t.Policy.AllowAll, t.Policy.AllowURIs, t.Policy.Wide = s.AllowAll, append(s.AllowURIs, s.VerifyURIs...), true
		t.Policy.OwnTrustDomain = t.Mode == sidecar.Client && len(s.VerifyURIs) == 0
	}
	if t.Listen == "" {
		t.Listen = "127.0.0.1:0"
	}
	return sidecar.Config{Tunnels: []sidecar.Tunnel{t}, Status: sidecar.Status{Listen: s.Status}, ShutdownTimeout: s.ShutdownTimeout,
		DrainIdle: s.DrainIdle, Deps: sidecar.Deps{Policy: policy.Deps{Name: flagOf(t.Mode)}}}
}

// flagOf gives settings the names that the command line has for them.
func flagOf(m sidecar.Mode) func(string) string {
	return func(key string) string {
		switch {
		case key != "allow_uris":
			return key
		case m == sidecar.Client:
			return "--verify-uri"
		default:
			return "--allow-uri"
		}
	}
}

// running is a sidecar that runs until the test ends.
type running struct {
	sidecar      *sidecar.Sidecar
	addr, status string
	log          *journal
	cancel       context.CancelFunc
	done         chan error
	err          error // what Run returned, once done is closed
}

// start runs a sidecar with cfg, once its addresses are bound.
func start(t *testing.T, cfg spec) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{log: newJournal(t), cancel: cancel, done: make(chan error, 1)}
	ready := make(chan sidecar.Addrs, 1)
	config := cfg.config()
	config.Log = slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	config.Ready = func(a sidecar.Addrs) { ready <- a }
	var err error
	r.sidecar, err = sidecar.New(config)
	check(t, err)
	go func() { r.done <- r.sidecar.Run(ctx) }()
	select {
	case a := <-ready:
		r.addr = a.Tunnels[""].String()
		if a.Status != nil {
			r.status = a.Status.String()
		}
	case err := <-r.done:
		cancel()
		t.Fatalf("Run: %v", err)
	}
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends the sidecar and returns what Run returned.
func (r *running) stop(t *testing.T) error {
	t.Helper()
	r.cancel()
	return r.wait(t)
}

func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err, open := <-r.done:
		if open {
			r.err = err
			close(r.done)
		}
	case <-time.After(limit):
		t.Fatalf("the sidecar does not end\n%s", stacks())
	}
	return r.err
}

func agent(t testing.TB, svid *x509svid.SVID, bundles ...*x509bundle.Bundle) *workloadtest.Server {
	t.Helper()
	return workloadtest.Start(t, []*x509svid.SVID{svid}, bundles...)
}

// backend is a TCP server that handles each connection with serve.
func backend(t *testing.T, serve func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// echo sends back what comes, and ends when its client does.
func echo(c *net.TCPConn) {
	if _, err := io.Copy(c, struct{ io.Reader }{c}); err == nil {
		c.CloseWrite()
	}
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	check(t, c.SetDeadline(time.Now().Add(limit)))
	return c.(*net.TCPConn)
}

// roundTrip sends s over a new connection, half-closes, and returns the answer.
func roundTrip(t testing.TB, addr, s string) (string, error) {
	t.Helper()
	conn, err := net.Dial("tcp", addr) // may be reset before it is made
	if err != nil {
		return "", err
	}
	defer conn.Close()
	check(t, conn.SetDeadline(time.Now().Add(limit)))
	c := conn.(*net.TCPConn)
	if _, err := io.WriteString(c, s); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	return string(got), err
}

// pair is app -> client -> server -> backend.
type pair struct {
	ca             *testca.CA
	webAgent       *workloadtest.Server // of the client
	dbAgent        *workloadtest.Server // of the server
	client, server *running
}

// newPair starts one whose server lets webID in.
func newPair(t *testing.T, target string, change ...func(client, server *spec)) *pair {
	t.Helper()
	p := &pair{ca: testca.New(t, "one.test")}
	p.webAgent = agent(t, p.ca.SVID(t, webID), p.ca.Bundle())
	p.dbAgent = agent(t, p.ca.SVID(t, dbID), p.ca.Bundle())
	server := spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: target}, WorkloadAPIAddr: p.dbAgent.Addr(), AllowURIs: []string{webID}}
	client := spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Client}, WorkloadAPIAddr: p.webAgent.Addr()}
	for _, c := range change {
		c(&client, &server)
	}
	p.server = start(t, server)
	client.Target = p.server.addr
	p.client = start(t, client)
	return p
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func stacks() []byte {
	buf := make([]byte, 1<<20)
	return bytes.TrimSpace(buf[:runtime.Stack(buf, true)])
}

// isCleanEnd reports whether a reader took err for the regular end.
func isCleanEnd(err error) bool { return err == nil || errors.Is(err, io.EOF) }

// socketDir is short: a socket's path is limited.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
