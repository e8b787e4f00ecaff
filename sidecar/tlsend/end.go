package tlsend

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// Config is what the handshakes of one tunnel have in common; Policy is mandatory.
type Config struct {
	// Policy decides about peers, at every connection: resumed sessions too.
	Policy policy.Policy
	// NextProtos are the ALPN protocols (RFC 7301), in order of preference; none does without ALPN. A client that offers
	// protocols, but none of the server's, is refused; one that offers none at all is not.
	NextProtos []string
	// MinVersion and MaxVersion are of TLS; 0 is TLS 1.2, and the highest there is.
	MinVersion, MaxVersion uint16
	// CipherSuites are those of TLS 1.2; nil is crypto/tls's choice.
	CipherSuites []uint16
	// ServerName is what a client sends as SNI. It plays no part in verification.
	ServerName string
	// VerifyName is the host name or IP address that a client expects in the server's certificate, where peers are not
	// verified by SPIFFE ID or by Pins. Without it such a client refuses every server.
	VerifyName string
	// Pins leaves the verification of peers to the policy: it gets their certificates with nothing proved but that they
	// have the key.
	Pins bool
	// NoClientAuth makes a server ask for no certificate.
	NoClientAuth bool
	// DisableResumption makes each handshake a full one.
	DisableResumption bool
	// Tunnel, Listen and Target are as configured, for the policy.
	Tunnel, Listen, Target string
	// Now is the time that certificates are verified at; nil is time.Now.
	Now func() time.Time
}

// End makes the handshakes of one tunnel, with the identities of one Source. It is safe for concurrent use.
type End struct {
	cfg       Config
	direction record.Direction
	wrap      func(net.Conn, *tls.Config) *tls.Conn
	build     func(*identity.Identity) *tls.Config
	ask       bool // the policy needs the connection
	newest    atomic.Pointer[versioned]
}

// NewServer returns the End that takes handshakes.
func NewServer(cfg Config) *End {
	e := newEnd(cfg, record.Inbound, tls.Server)
	e.build = e.server
	return e
}

// NewClient returns the End that begins handshakes.
func NewClient(cfg Config) *End {
	e := newEnd(cfg, record.Outbound, tls.Client)
	e.build = e.client
	return e
}

func newEnd(cfg Config, d record.Direction, wrap func(net.Conn, *tls.Config) *tls.Conn) *End {
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS12
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &End{cfg: cfg, direction: d, wrap: wrap, ask: policy.NeedsConnection(cfg.Policy)}
}

// Handshake completes a handshake over sock as id, and puts into rec what came of it. If it fails, it closes sock, rec
// says why, and there is no connection.
func (e *End) Handshake(ctx context.Context, sock *pipe.Socket, id *identity.Identity, rec *record.Record) (*tls.Conn, bool) {
	if id.Certificate() == nil && id.Challenge() == nil && e.direction == record.Inbound {
		rec.End(record.NoIdentity, errNoCertificate)
		sock.Close()
		return nil, false
	}
	config := e.config(ctx, id)
	var decision policy.Decision
	if e.ask {
		// The policy wants to know more than a configuration that many connections share can tell it.
		config = config.Clone()
		config.VerifyConnection = func(cs tls.ConnectionState) (err error) {
			decision, err = e.verify(ctx, id, cs, rec.Client)
			return err
		}
	}
	conn := e.wrap(sock, config)
	start := time.Now()
	err := conn.HandshakeContext(ctx)
	state := conn.ConnectionState()
	e.describe(rec, id, state)
	if err != nil {
		e.fail(ctx, sock, rec, state, err)
		return nil, false
	}
	rec.Handshake = time.Since(start)
	if probed(id, state) {
		conn.Close()
		rec.Rule = "ACME challenge"
		rec.End(record.Closed, nil)
		return nil, false
	}
	if !e.ask {
		// The configuration that many connections share can't tell what it decided about this one.
		decision = e.cfg.Policy.Decide(ctx, e.request(id, rec.Peer, state, ""))
	}
	if !decision.Allowed {
		// verify has refused such a peer already. This holds should a configuration ever leave it out.
		e.fail(ctx, sock, rec, state, refused(rec.Peer, decision))
		return nil, false
	}
	rec.Rule = decision.Rule
	return conn, true
}
