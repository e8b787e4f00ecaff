package serverapi

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// through connects as a proxy does that forwards a connection from the address.
func (r *rig) through(header io.WriterTo) *grpc.ClientConn {
	r.tb.Helper()
	conn, err := grpc.NewClient("passthrough:///issuer", grpc.WithTransportCredentials(credentials.NewTLS(r.clientTLS(nil))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", r.addr)
			if err == nil && header != nil {
				_, err = header.WriteTo(conn)
			}
			return conn, err
		}))
	must(r.tb, err)
	r.tb.Cleanup(func() { must(r.tb, conn.Close()) })
	return conn
}

func from(version byte, addr string) *proxyproto.Header {
	return proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)), &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 8081})
}

// TestProxyProtocol wants the address that a trusted proxy tells to be the
// peer's, for attestors as for the log.
func TestProxyProtocol(t *testing.T) {
	r := newRigWith(t, func(d *Deps) { d.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	for i, tt := range []struct {
		header io.WriterTo
		want   string
	}{
		{from(1, "198.51.100.7:4711"), "198.51.100.7"},
		{from(2, "198.51.100.8:4711"), "198.51.100.8"},
		{&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}, "127.0.0.1"},
		{nil, "127.0.0.1"}, // the proxy itself, or one that has no headers
	} {
		name := fmt.Sprintf("node-%d", i)
		_, err := r.converse(r.through(tt.header), name+" 0", echo)
		must(t, err)
		agent, ok := r.deps.Registry.Agent(spiffeID("/spire/agent/test/" + name))
		if !ok || !strings.Contains(fmt.Sprint(agent.Selectors), "peer:"+tt.want+"\"") {
			t.Errorf("%s: agent %v, want peer %s", name, agent, tt.want)
		}
	}
	if !strings.Contains(r.log.String(), "address=198.51.100.7:4711") {
		t.Error("the log has not the address that the proxy tells")
	}
	if _, err := r.converse(r.through(strings.NewReader("PROXY TCP4 nonsense\r\n")), "x 0", echo); err == nil {
		t.Error("a broken header was believed")
	}
}

// From anywhere else a header is no TLS, with the option and without.
func TestProxyProtocolOfStrangers(t *testing.T) {
	for _, trusted := range [][]netip.Prefix{nil, {netip.MustParsePrefix("10.0.0.0/8")}} {
		r := newRigWith(t, func(d *Deps) { d.ProxyProtocol = trusted })
		_, err := r.converse(r.through(from(2, "198.51.100.7:4711")), "node 0", echo)
		if status.Code(err) != codes.Unavailable {
			t.Errorf("trusting %v: %v", trusted, err)
		}
		_, err = r.converse(r.through(nil), "node 0", echo)
		must(t, err)
	}
}
