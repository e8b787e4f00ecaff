package inbound_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/inbound"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/poll"
	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
)

const limit = 30 * time.Second // what a test waits for anything at most

// rig is a Loop that hands its connections to a Handler.
type rig struct {
	t      *testing.T
	poller *poll.Poller
	ca     *testca.CA
	addr   string
	log    *bufio.Scanner
}

func start(t *testing.T, timeout time.Duration, change func(*rig, *inbound.Config)) *rig {
	t.Helper()
	poller, err := poll.New(poll.Config{Loops: 1})
	check(t, err)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	l, err := poller.Listener(tcp)
	check(t, err)
	logs, w := io.Pipe()
	r := &rig{t: t, poller: poller, ca: testca.New(t, "one.test"), addr: l.Addr().String(), log: bufio.NewScanner(logs)}
	rules, err := policy.Compile(policy.Config{AllowAll: true}, policy.Deps{})
	check(t, err)
	cfg := inbound.Config{Identity: r.identity(), TLS: tlsend.NewServer(tlsend.Config{Policy: rules}), Buffers: new(pipe.Buffers)}
	change(r, &cfg)
	loop := &accept.Loop{Listener: l, Log: slog.New(slog.NewJSONHandler(w, nil))}
	loop.Set(&accept.Settings{Handler: inbound.New(cfg), ConnectTimeout: timeout, ShutdownTimeout: limit})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		logs.Close()
		if err := errors.Join(<-ended, poller.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) identity() identity.Source {
	dir, svid := r.t.TempDir(), r.ca.SVID(r.t, "spiffe://one.test/db")
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		testca.Write(r.t, path, data)
		return path
	}
	source, err := identity.New(identity.Config{Cert: file("cert", testca.PEM(svid.Certificates...)), Key: file("key", testca.KeyPEM(r.t, svid.PrivateKey)),
		TrustBundles: map[string]string{"one.test": file("bundle", testca.PEM(r.ca.Cert))}}, identity.Deps{})
	check(r.t, err)
	check(r.t, source.Load(r.t.Context()))
	return source
}

// record waits for the next one.
func (r *rig) record() map[string]any {
	r.t.Helper()
	if !r.log.Scan() {
		r.t.Fatal("no record: ", r.log.Err())
	}
	rec := map[string]any{}
	check(r.t, json.Unmarshal(r.log.Bytes(), &rec))
	return rec
}

// secure makes c a connection of a client of one.test.
func (r *rig) secure(c net.Conn) *tls.Conn {
	svid := r.ca.SVID(r.t, "spiffe://one.test/web")
	return tls.Client(c, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}}})
}

func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	check(r.t, err)
	r.t.Cleanup(func() { c.Close() })
	check(r.t, c.SetDeadline(time.Now().Add(limit)))
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// silent is a target whose queue is full, and that takes nothing.
func silent(t *testing.T, p *poll.Poller) func(context.Context, net.Conn) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return func(ctx context.Context, near net.Conn) (net.Conn, error) {
		c, err := p.Dial(ctx, "tcp", l.Addr().String(), poll.DialOptions{Near: near})
		for err == nil {
			_, err = c.(*poll.Conn).TryWrite(make([]byte, 64<<10))
		}
		if err != unix.EAGAIN {
			t.Error(err)
		}
		return c, nil
	}
}

// A target that does not even take the PROXY header costs a connection no more than the connect timeout.
func TestPROXYHeaderForATargetThatTakesNothing(t *testing.T) {
	r := start(t, 300*time.Millisecond, func(r *rig, c *inbound.Config) {
		c.SendProxy, c.Dial = proxyproto.TLSFull, silent(t, r.poller)
	})
	c := r.secure(r.dial())
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("%v: the client takes it for an answer", err)
	}
	if rec := r.record(); rec["cause"] != "dial timeout" {
		t.Errorf("%v", rec)
	}
}

// echo is a target that sends back what comes.
func echo(t *testing.T, p *poll.Poller) func(context.Context, net.Conn) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, struct{ io.Reader }{c})
				c.Close()
			}()
		}
	}()
	return func(ctx context.Context, near net.Conn) (net.Conn, error) {
		return p.Dial(ctx, "tcp", l.Addr().String(), poll.DialOptions{Near: near})
	}
}

func behindBalancer(t *testing.T) func(r *rig, c *inbound.Config) {
	return func(r *rig, c *inbound.Config) {
		var err error
		c.Balancers, err = proxyproto.ParseTrusted("accept_proxy_protocol", []string{"127.0.0.0/8"})
		check(t, err)
		c.Dial = echo(t, r.poller)
	}
}

// gluing writes what came first in front of the first write, so that both are in one segment.
type gluing struct {
	net.Conn
	first []byte
}

func (c *gluing) Write(b []byte) (int, error) {
	_, err := c.Conn.Write(append(c.first, b...))
	c.first = nil
	return len(b), err
}

// Not a byte of the handshake behind the header is lost. Setting the connection up, whose time is over then, leaves no
// deadline behind.
func TestGap21HeaderAndHandshakeInOneSegment(t *testing.T) {
	r := start(t, limit, behindBalancer(t))
	c := r.secure(&gluing{r.dial(), []byte("PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n")})
	for range 2 {
		_, err := c.Write([]byte("x"))
		check(t, err)
		_, err = io.ReadFull(c, make([]byte, 1))
		check(t, err)
	}
	check(t, c.CloseWrite())
	_, err := io.ReadAll(c)
	check(t, err)
	if rec := r.record(); rec["cause"] != "closed" || rec["client"] != "192.0.2.7:1234" {
		t.Errorf("%v", rec)
	}
}

// A header that comes byte by byte, and never wholly, is waited for no longer than for a handshake.
func TestHeaderThatNeverEnds(t *testing.T) {
	r := start(t, 300*time.Millisecond, behindBalancer(t))
	c := r.dial()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		io.Copy(io.Discard, c)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	header := "PROXY TCP4 192.0.2.7 192.0.2.8 1234 443"
	for i := 0; ; i++ {
		select {
		case <-tick.C:
			io.WriteString(c, header[min(i, len(header)-1):][:1])
			continue
		case <-ended:
		}
		break
	}
	if rec := r.record(); rec["cause"] != "handshake timeout" {
		t.Errorf("%v", rec)
	}
}

func TestBadHeader(t *testing.T) {
	for first, want := range map[string]string{
		"":                         "read PROXY header: EOF",
		"GET / HTTP/1.0\r\n\r\n":   "no PROXY header, but",
		"PROXY TCP4 1.2.3.4\r\n\n": "PROXY header",
	} {
		r := start(t, limit, behindBalancer(t))
		c := r.dial()
		_, err := io.Copy(c, bytes.NewBufferString(first))
		check(t, err)
		c.(*net.TCPConn).CloseWrite() // it may be over already
		io.Copy(io.Discard, c)
		if rec := r.record(); rec["cause"] != "bad PROXY header" || !strings.Contains(rec["error"].(string), want) {
			t.Errorf("%q: %v", first, rec)
		}
	}
}
