package oidc

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// maxDomain is the longest name of a host in bytes (RFC 1035, section 2.3.4).
const maxDomain = 253

// parseDomain returns the form in which names of hosts are compared: lower case, without the root's dot. Names are as
// they are on the wire: what is not of ASCII is written in Punycode.
func parseDomain(name string) (string, error) {
	if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() == "" {
		return addr.String(), nil
	}
	domain := strings.ToLower(strings.TrimSuffix(name, "."))
	if domain == "" || len(domain) > maxDomain {
		return "", fmt.Errorf("%q is not a domain name", name)
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("%q is not a domain name", name)
		}
		for _, r := range label {
			switch {
			case r >= 0x80:
				return "", fmt.Errorf("%q must be in Punycode, such as xn--bcher-kva.example", name)
			case (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_':
				return "", fmt.Errorf("%q is not a domain name", name)
			}
		}
	}
	return domain, nil
}

// splitHost takes a Host header, host or host:port, apart. The port is digits, or "" where there is none.
func splitHost(hostport string) (domain, port string, err error) {
	host := hostport
	if h, p, err := net.SplitHostPort(hostport); err == nil {
		if host, port = h, p; strings.Trim(port, "0123456789") != "" || port == "" || len(port) > 5 {
			return "", "", fmt.Errorf("port %q is not a number", port)
		}
	} else if inner, ok := strings.CutPrefix(hostport, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	domain, err = parseDomain(host)
	return domain, port, err
}

// joinHost is the inverse of splitHost, as a URL has it.
func joinHost(domain, port string) string {
	if port != "" {
		return net.JoinHostPort(domain, port)
	}
	if strings.Contains(domain, ":") {
		return "[" + domain + "]"
	}
	return domain
}
