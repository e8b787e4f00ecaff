package sds

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// address is where Envoy listens or connects: a path, or a host and a port.
type address struct {
	Path string
	Host string
	Port uint16
}

// parseAddress reads HOST:PORT, [IPv6]:PORT and unix:/PATH.
func parseAddress(s string) (address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if uri, ok := strings.CutPrefix(path, "//"); ok && strings.HasPrefix(uri, "/") {
			path = uri // unix:///path is the same, as a URI
		}
		return address{Path: path}, checkSocketPath(path)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, fmt.Errorf("%q: use HOST:PORT or unix:/PATH", abbreviate(s))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return address{}, fmt.Errorf("%q: port %q is not a number from 1 to 65535", abbreviate(s), abbreviate(port))
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
		return address{Host: ip.String(), Port: uint16(n)}, nil
	}
	if !hostname.MatchString(host) || len(host) > 253 || looksNumeric(host) {
		return address{}, fmt.Errorf("%q: %q is neither an IP address nor a host name", abbreviate(s), abbreviate(host))
	}
	return address{Host: host, Port: uint16(n)}, nil
}

// hostname is that of RFC 1123, section 2.1, with the underscore that container
// networks allow.
var hostname = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)

// looksNumeric tells a mistyped IPv4 address from a name: no name ends in a
// label of digits (RFC 1123, section 2.1).
func looksNumeric(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	_, err := strconv.ParseUint(last, 10, 64)
	return err == nil
}

// numeric says that no name has to be resolved.
func (a address) numeric() bool {
	_, err := netip.ParseAddr(a.Host)
	return a.Path != "" || err == nil
}

func (a address) loopback() bool {
	ip, err := netip.ParseAddr(a.Host)
	return err == nil && ip.IsLoopback()
}
