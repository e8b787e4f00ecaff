package serverapi

import (
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
)

// maxStrangerBytes is what one connection may send in all, in bytes, of a client
// that has no rights here: that of one message. To join takes less than a tenth.
// gRPC gathers a message before anyone can judge its sender, up to maxMessage for
// each of maxStreams: without this bound a stranger could have 4 GiB held for one
// connection.
const maxStrangerBytes = maxMessage

// strangerConn is a connection of a client without rights. Only the reader of the
// connection reads it.
type strangerConn struct {
	net.Conn
	left atomic.Int64
}

func newStrangerConn(conn net.Conn) *strangerConn {
	c := &strangerConn{Conn: conn}
	c.left.Store(maxStrangerBytes)
	return c
}

// Read implements [net.Conn]. Its error ends the connection; the client makes
// another one.
func (c *strangerConn) Read(p []byte) (int, error) {
	if c.left.Load() <= 0 {
		return 0, fmt.Errorf("a client without rights sent %d bytes over one connection", maxStrangerBytes)
	}
	n, err := c.Conn.Read(p)
	c.left.Add(-int64(n))
	return n, err
}

// isStranger reports whether the client of a new connection has no rights: no
// certificate, or that of a mere workload. An agent that is not known (yet, or any
// more) is none: it had to prove itself for its certificate.
func (g *guard) isStranger(info credentials.TLSInfo) bool {
	id, err := mtls.PeerID(info.State)
	if err != nil {
		return true
	}
	caller := Caller{ID: id, Cert: info.State.PeerCertificates[0]}
	return !nodeattest.IsAgentID(g.deps.TrustDomain, id) && !g.isAdmin(caller) && !g.isDownstream(caller)
}
