package acme_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/identity/acme"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/poll"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
)

const name = "sidecar.test"

// listener is a tunnel's, for clients without certificates.
type listener struct{ *poll.Listener }

func listen(t *testing.T) *listener {
	t.Helper()
	p, err := poll.New(poll.Config{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pl, err := p.Listener(inner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pl.Close() // may be closed already
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &listener{pl}
}

// serve answers every connection of a client with a byte, and probes as a sidecar does.
func (l *listener) serve(t *testing.T, source identity.Source) {
	t.Helper()
	rules, err := policy.Compile(policy.Config{DisableAuthentication: true}, policy.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	end := tlsend.NewServer(tlsend.Config{Policy: rules, NoClientAuth: true})
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			sock, err := pipe.NewSocket(conn, new(pipe.Buffers))
			if err != nil {
				t.Error(err)
				return
			}
			id, err := source.Wait(ctx)
			if err != nil {
				sock.Close()
				continue
			}
			if secure, ok := end.Handshake(ctx, sock, id, &record.Record{Start: time.Now()}); ok {
				secure.Write([]byte("y"))
				secure.Close()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		l.Close()
		<-done
	})
}

// ask returns what a client that trusts the authority is shown.
func ask(t *testing.T, addr string, a authority) (tls.ConnectionState, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: a.roots, ServerName: name})
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	_, err = io.ReadFull(conn, make([]byte, 1))
	return conn.ConnectionState(), err
}

// source runs an identity of a until the function is called that it returns.
func source(t *testing.T, a authority, port int, opt acme.Options) (identity.Source, func()) {
	t.Helper()
	opt.Roots, opt.ListenHost = a.https, "127.0.0.1"
	s, err := identity.New(identity.Config{ACME: identity.ACME{FQDN: name, Email: "ops@sidecar.test", AgreeToTOS: true, CA: a.directory, TestCA: "",
		RenewCheckInterval: 50 * time.Millisecond, AltTLSALPNPort: port}}, identity.Deps{ACME: opt.New, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err == nil {
		err = s.Load(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return s, stop
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never saw %s", what)
		}
	}
}

// The authority's probe comes to the sidecar's own listener, before there is a certificate and while there is one.
func TestObtainsRenewsAndKeeps(t *testing.T) {
	l := listen(t)
	addr := l.Addr().String()
	a := pebble(t, portOf(t, addr), 6)
	opt := acme.Options{Storage: t.TempDir()}
	s, stop := source(t, a, portOf(t, addr), opt)
	l.serve(t, s)
	until(t, "the certificate", func() bool { return s.Status().Err == nil })
	cs, err := ask(t, addr, a)
	if err != nil {
		t.Fatal(err)
	}
	first := cs.PeerCertificates[0]
	until(t, "its renewal", func() bool { return s.Status().NotAfter.After(first.NotAfter) })
	if cs, err = ask(t, addr, a); err != nil || cs.PeerCertificates[0].Equal(first) {
		t.Errorf("after the renewal: %v", err)
	}
	held := s.Status().NotAfter
	stop()
	// What was obtained is there after a restart, and nobody is asked for it.
	a.stop()
	again, _ := source(t, a, portOf(t, addr), opt)
	until(t, "the certificate on disk", func() bool { return again.Status().NotAfter.Equal(held) })
}

func TestGivesUpAfterFiveAttempts(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	attempts := &counter{Handler: slog.DiscardHandler}
	directory := "https://" + closed.Addr().String() + "/dir"
	o, err := acme.Options{Storage: t.TempDir(), FirstWait: time.Millisecond}.New(identity.ACME{FQDN: name, Email: "ops@sidecar.test", AgreeToTOS: true,
		CA: directory, TestCA: directory}, slog.New(attempts))
	if err != nil {
		t.Fatal(err)
	}
	err = o.Run(t.Context(), func(*tls.Certificate) { t.Error("a certificate") })
	if err == nil || !strings.Contains(err.Error(), "no certificate for sidecar.test from "+directory) {
		t.Error(err)
	}
	if attempts.n != 4 {
		t.Errorf("tried again %d times, want 4", attempts.n)
	}
	if _, err := o.Challenge(&tls.ClientHelloInfo{}); err == nil {
		t.Error("a probe is answered by nobody's challenge")
	}
}

// counter counts the lines that say that there is another attempt.
type counter struct {
	slog.Handler
	n int
}

func (*counter) Enabled(context.Context, slog.Level) bool { return true }

func (c *counter) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "no certificate yet, trying again") {
		c.n++
	}
	return nil
}
