package serverapi

import (
	"net"
	"net/netip"
	"slices"

	"github.com/pires/go-proxyproto"
)

// believeProxies makes connections from the trusted networks have the address
// that their proxy tells (PROXY protocol, versions 1 and 2), where it tells one.
// From anywhere else such a header ends the connection: it is not TLS.
func believeProxies(l net.Listener, trusted []netip.Prefix) net.Listener {
	if len(trusted) == 0 {
		return l
	}
	return &proxyproto.Listener{
		Listener:          l,
		ReadHeaderTimeout: handshakeTimeout,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			tcp, ok := o.Upstream.(*net.TCPAddr)
			if !ok {
				return proxyproto.REJECT, nil
			}
			from := tcp.AddrPort().Addr().Unmap().WithZone("")
			if slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(from) }) {
				return proxyproto.USE, nil
			}
			return proxyproto.REJECT, nil
		},
	}
}
