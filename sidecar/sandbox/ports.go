package sandbox

import (
	"net"
	"net/url"
	"strings"
)

// dnsPort is for answers that don't fit a datagram.
const dnsPort = 53

// schemePorts are what a URL without a port means. An http:// proxy's is 8080 (package via).
var schemePorts = map[string][]uint16{"http": {80, 8080}, "https": {443}, "socks5": {1080}, "socks5h": {1080}}

// bound grants listening on address.
func (g *grants) bound(address string) {
	for _, scheme := range []string{"http://", "https://"} {
		address = strings.TrimPrefix(address, scheme)
	}
	kind, rest, _ := strings.Cut(address, ":")
	switch {
	case address == "" || kind == "systemd":
		return // nothing, or bound already
	case kind == "unix":
		g.boundSocket(rest)
		return
	}
	port, err := lookup(address)
	switch {
	case err != nil:
		g.problems = append(g.problems, "listening stays unrestricted: "+err.Error())
		g.bind = nil
	case port == 0:
		g.bind = nil
	case g.bind != nil:
		g.bind[port] = true
	}
}

// connected grants dialling address.
func (g *grants) connected(address string) {
	if address == "" || g.connect == nil {
		return
	}
	if strings.HasPrefix(address, "unix:") {
		g.dialled(address)
		return
	}
	if u, err := url.Parse(address); err == nil && schemePorts[u.Scheme] != nil {
		if u.Port() == "" {
			for _, port := range schemePorts[u.Scheme] {
				g.connect[port] = true
			}
			return
		}
		address = u.Host // without a password, for what is logged
	}
	port, err := lookup(address)
	if err != nil {
		g.problems = append(g.problems, "connecting stays unrestricted: "+err.Error())
		g.connect = nil
		return
	}
	g.connect[port] = true
}

// lookup returns the port of HOST:PORT, also by its name.
func lookup(address string) (uint16, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		if at := strings.LastIndexByte(address, '@'); at >= 0 {
			err = &net.AddrError{Err: "not HOST:PORT", Addr: address[at+1:]} // what is before may be a password
		}
		return 0, err
	}
	n, err := net.LookupPort("tcp", port)
	return uint16(n), err
}

// withScheme makes a proxy's address from the environment a URL, as net/http reads it.
func withScheme(proxy string) string {
	if u, err := url.Parse(proxy); err == nil && u.Host != "" && schemePorts[u.Scheme] != nil {
		return proxy
	}
	return "http://" + proxy
}
