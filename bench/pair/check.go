package pair

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/lanyard-mtls/lanyard/bench/hello"
	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// checked is how many connections a check makes, enough for a second worker to have a session to resume as well.
const checked = 8

// Check proves of a peer and a variant what its figures are worth nothing without, and returns the last handshake seen
// between its two sides: bytes come back as they were sent, also more than any buffer holds; the wire between the sides is TLS
// 1.3, with the key exchange and suite asked for, and no session is resumed where none should be; the server refuses a client
// without a certificate, and one of another authority; the client refuses such a server.
func (b *Bed) Check(ctx context.Context, peer *Peer, variant Variant) (hello.Server, error) {
	dir, err := os.MkdirTemp(b.Dir, peer.Name)
	if err != nil {
		return hello.Server{}, err
	}
	c := &check{bed: b, peer: peer, variant: variant, pair: &Pair{dir: dir}}
	seen, err := c.run(ctx)
	if err != nil {
		err = fmt.Errorf("%s (%v): %w", peer.Name, variant, err)
	}
	return seen, errors.Join(err, c.pair.Stop())
}

type check struct {
	bed     *Bed
	peer    *Peer
	variant Variant
	pair    *Pair
}

func (c *check) run(ctx context.Context) (hello.Server, error) {
	var server string
	var err error
	if c.pair.server, server, err = c.bed.side(c.peer, c.pair.dir, Side{Server: true, Target: c.bed.Backend, Variant: c.variant}); err != nil {
		return hello.Server{}, err
	}
	tap, err := newTap(server)
	if err != nil {
		return hello.Server{}, err
	}
	defer tap.Close()
	if c.pair.client, c.pair.Addr, err = c.bed.side(c.peer, c.pair.dir, Side{Target: tap.Addr().String(), Variant: c.variant}); err != nil {
		return hello.Server{}, err
	}
	if err := c.pair.ready(ctx); err != nil {
		return hello.Server{}, err
	}
	for range checked {
		if err := echo(c.pair.Addr, 3_000_000); err != nil {
			return hello.Server{}, fmt.Errorf("3 MB there and back: %w", err)
		}
	}
	seen, err := c.wire(tap)
	if err == nil {
		err = c.strangers(server)
	}
	if err == nil {
		err = c.impostor(ctx)
	}
	return seen, err
}

// wire judges the handshakes that went by.
func (c *check) wire(t *tap) (hello.Server, error) {
	last, resumed := hello.Server{}, false
	for range checked {
		select {
		case seen := <-t.seen:
			last = seen
			resumed = resumed || last.Resumed
		case <-time.After(5 * time.Second):
			return last, errors.New("fewer handshakes between the two sides than connections")
		}
	}
	last.Resumed = resumed
	want := last.Group == tls.X25519 && last.Suite == tls.TLS_AES_128_GCM_SHA256
	if last.Version != tls.VersionTLS13 || !c.variant.Defaults && !want || c.variant.Full && resumed {
		return last, fmt.Errorf("the two sides speak %v", last)
	}
	return last, nil
}

// strangers sends the server clients it must refuse.
func (c *check) strangers(server string) error {
	stranger, err := tls.LoadX509KeyPair(c.bed.Certs.Stranger.Cert, c.bed.Certs.Stranger.Key)
	if err != nil {
		return err
	}
	// The server's certificate is of no interest here: what is tested is that it asks for ours.
	bare := &tls.Config{InsecureSkipVerify: true}
	other := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &stranger, nil
	}}
	for what, config := range map[string]*tls.Config{"without a certificate": bare, "of another authority": other} {
		conn, err := tls.Dial("tcp", server, config)
		if err == nil {
			err = echoOn(conn, 64)
			conn.Close()
		}
		if err == nil {
			return fmt.Errorf("the server takes a client %s", what)
		}
	}
	return nil
}

// impostor has a client meet a server of another authority.
func (c *check) impostor(ctx context.Context) error {
	l, met, err := c.startImpostor()
	if err != nil {
		return err
	}
	defer l.Close()
	client, addr, err := c.bed.side(c.peer, c.pair.dir, Side{Target: l.Addr().String(), Variant: c.variant})
	if err != nil {
		return err
	}
	defer func() { _ = client.Stop(stopGrace) }()
	var refused error // how the handshake ended for the impostor
	err = harness.Until(ctx, startLimit, "a client that meets an impostor", func(context.Context) error {
		_ = echo(addr, 64) // it has no answer either way
		select {
		case refused = <-met:
			return nil
		default:
			return errors.New("it does not try")
		}
	})
	if err == nil && refused == nil {
		err = errors.New("the client takes a server of another authority")
	}
	return err
}

// startImpostor serves TLS with a certificate the client must not take. It tells how each handshake ended.
func (c *check) startImpostor() (net.Listener, <-chan error, error) {
	cert, err := tls.LoadX509KeyPair(c.bed.Certs.Stranger.Cert, c.bed.Certs.Stranger.Key)
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, ClientCAs: x509.NewCertPool()}
	met := make(chan error, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			secure := tls.Server(conn, config)
			_ = secure.SetDeadline(time.Now().Add(5 * time.Second))
			_, err = io.ReadFull(secure, make([]byte, 1)) // in TLS 1.3 the refusal may come after the handshake
			conn.Close()
			select {
			case met <- err:
			default:
			}
		}
	}()
	return l, met, nil
}
