package tlsend_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/poll"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
)

// rig makes real connections over loopback, through the sockets that the sidecar has.
type rig struct {
	t       testing.TB
	poller  *poll.Poller
	buffers pipe.Buffers
}

func newRig(t testing.TB) *rig {
	t.Helper()
	p, err := poll.New(poll.Config{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rig{t: t, poller: p}
}

// server is an End that takes connections, each of which answers a byte with a byte.
type server struct {
	addr    string
	end     atomic.Pointer[tlsend.End]
	records chan *record.Record // one a connection
}

func (r *rig) serve(end *tlsend.End, source identity.Source) *server {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), records: make(chan *record.Record, 64)}
	s.end.Store(end)
	pl, err := r.poller.Listener(l)
	if err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := pl.Accept()
			if err != nil {
				return
			}
			s.records <- r.handle(s.end.Load(), source, conn, serveByte)
		}
	}()
	r.t.Cleanup(func() {
		pl.Close()
		<-done
	})
	return s
}

// last returns the record of the oldest connection that was not asked for yet.
func (s *server) last(t testing.TB) *record.Record {
	t.Helper()
	select {
	case rec := <-s.records:
		return rec
	case <-time.After(20 * time.Second):
		t.Fatal("no record")
		return nil
	}
}

// handle makes a handshake over conn and calls then, if it comes about.
func (r *rig) handle(end *tlsend.End, source identity.Source, conn net.Conn, then func(*tls.Conn) error) *record.Record {
	rec := &record.Record{Start: time.Now(), Client: conn.RemoteAddr().String()}
	sock, err := pipe.NewSocket(conn, &r.buffers)
	if err != nil {
		r.t.Error(err)
		return rec
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	id, err := source.Wait(ctx)
	if err != nil {
		rec.End(tlsend.NoIdentity(ctx, err))
		sock.Close()
		return rec
	}
	rec.Own = id.ID()
	secure, ok := end.Handshake(ctx, sock, id, rec)
	if !ok {
		return rec
	}
	if err := then(secure); err != nil {
		rec.End(record.Failed, err)
	} else {
		rec.End(record.Closed, nil)
	}
	secure.Close()
	return rec
}

func serveByte(c *tls.Conn) error {
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return err
	}
	_, err := c.Write([]byte("y"))
	return err
}

// askByte takes in what comes before the answer too: session tickets, or the alert of a server that refuses.
func askByte(c *tls.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// connect is a connection of an End to addr.
func (r *rig) connect(end *tlsend.End, source identity.Source, addr string) *record.Record {
	r.t.Helper()
	conn, err := r.poller.Dial(r.t.Context(), "tcp", addr, poll.DialOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.handle(end, source, conn, askByte)
}

// stock is a connection of plain crypto/tls to addr.
func stock(t testing.TB, addr string, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	err = askByte(conn.(*tls.Conn))
	return conn.(*tls.Conn).ConnectionState(), err
}

// keyPair is a certificate as a stock client takes it.
func keyPair(svid *x509svid.SVID) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}
}

// files are a Source of certificate files that a test writes.
type files struct {
	identity.Source
	dir string
}

func (f *files) open(t testing.TB, c identity.Config) *files {
	t.Helper()
	s, err := identity.New(c, identity.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Source = s
	return f
}

// svids is a Source of svid in files, with the bundles of cas.
func (r *rig) svids(svid *x509svid.SVID, cas ...*testca.CA) *files {
	r.t.Helper()
	f := &files{dir: r.t.TempDir()}
	c := identity.Config{TrustBundles: map[string]string{}}
	for _, ca := range cas {
		c.TrustBundles[ca.TrustDomain.Name()] = f.write(r.t, ca.TrustDomain.Name(), testca.PEM(ca.Cert))
	}
	c.Cert, c.Key = f.pair(r.t, svid.Certificates[0], svid.PrivateKey)
	return f.open(r.t, c)
}

// web is a Source of a certificate that is no SVID, and of the authorities in roots, or the system's without any.
func (r *rig) web(cert *x509.Certificate, key crypto.Signer, roots ...*x509.Certificate) *files {
	r.t.Helper()
	f := &files{dir: r.t.TempDir()}
	c := identity.Config{None: cert == nil}
	if cert != nil {
		c.Cert, c.Key = f.pair(r.t, cert, key)
	}
	if len(roots) > 0 {
		c.CACert = f.write(r.t, "ca.pem", testca.PEM(roots...))
	}
	return f.open(r.t, c)
}

func (f *files) write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(f.dir, name)
	testca.Write(t, path, data)
	return path
}

func (f *files) pair(t testing.TB, cert *x509.Certificate, key crypto.Signer) (certPath, keyPath string) {
	t.Helper()
	return f.write(t, "cert.pem", testca.PEM(cert)), f.write(t, "key.pem", testca.KeyPEM(t, key))
}

func (f *files) reload(t testing.TB) {
	t.Helper()
	if err := f.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func rules(t testing.TB, c policy.Config) policy.Policy {
	t.Helper()
	p, err := policy.Compile(c, policy.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func allowAll(t testing.TB) policy.Policy { t.Helper(); return rules(t, policy.Config{AllowAll: true}) }
