package serverapi

import (
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
)

// What one connection may send in all, in bytes. gRPC gathers a message before
// anyone can judge its sender, up to maxMessage for each of maxStreams: without
// these bounds a client could have 4 GiB held for one connection. Administrators
// and issuers below this one have none.
const (
	// maxStrangerBytes is for clients without rights: as much as one message has.
	// To join takes less than a tenth.
	maxStrangerBytes = maxMessage
	// maxAgentBytes is for agents. To have 100,000 SVIDs signed within the life of
	// a connection takes a quarter.
	maxAgentBytes = 256 << 20
)

// boundedConn is a connection whose client may send so much and no more. Only
// the reader of the connection reads it.
type boundedConn struct {
	net.Conn
	most, got int64
}

// Read implements [net.Conn]. Its error ends the connection; the client makes
// another one.
func (c *boundedConn) Read(p []byte) (int, error) {
	if c.got >= c.most {
		return 0, fmt.Errorf("a client sent %d bytes over one connection", c.most)
	}
	n, err := c.Conn.Read(p)
	c.got += int64(n)
	return n, err
}

// bound returns the connection as its client may use it.
func (g *guard) bound(conn net.Conn, info credentials.TLSInfo) net.Conn {
	if most := g.maxBytes(info); most > 0 {
		return &boundedConn{Conn: conn, most: most}
	}
	return conn
}

// maxBytes is what the client of a new connection may send; 0 is any number. A
// client without rights has no certificate, or that of a mere workload. An agent
// that is not known (yet, or any more) is none: it had to prove itself for its
// certificate.
func (g *guard) maxBytes(info credentials.TLSInfo) int64 {
	id, err := mtls.PeerID(info.State)
	if err != nil {
		return maxStrangerBytes
	}
	caller := Caller{ID: id, Cert: info.State.PeerCertificates[0]}
	switch {
	case g.isAdmin(caller), g.isDownstream(caller):
		return 0
	case nodeattest.IsAgentID(g.deps.TrustDomain, id):
		return maxAgentBytes
	}
	return maxStrangerBytes
}
