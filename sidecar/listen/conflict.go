package listen

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Key returns what two configurations compare to see that a listener stays: addresses with equal keys are one socket, however they
// are spelled. How the socket is made (Options) is no part of it.
func (a Address) Key() string {
	switch a.Network {
	case UNIX:
		return UNIX + ":" + filepath.Clean(a.Address)
	case TCP:
		host, port := a.canonical()
		return TCP + ":" + net.JoinHostPort(host, port)
	}
	return a.String()
}

// Conflicts says whether a and b can't both be listened on by one process: the same path, the same name, or the same port where the
// hosts are the same or one of them is a wildcard. Port 0 is a new port each time. A host name, localhost aside, is not resolved: it
// conflicts with itself and with wildcards.
func Conflicts(a, b Address) bool {
	if a.Network != b.Network || a.IsZero() {
		return false
	}
	if a.Network != TCP {
		return a.Key() == b.Key()
	}
	hostA, portA := a.canonical()
	hostB, portB := b.canonical()
	if portA != portB || portA == "0" {
		return false
	}
	return covers(hostA, hostB) || covers(hostB, hostA)
}

// canonical returns the host in one spelling, [::] for what is open to all of IPv4 and IPv6, and the number of the port, if its name is
// known.
func (a Address) canonical() (host, port string) {
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return a.Address, ""
	}
	if n, err := a.Port(); err == nil {
		port = strconv.Itoa(int(n))
	}
	if host == "" {
		return "::", port
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String(), port
	}
	return strings.ToLower(strings.TrimSuffix(host, ".")), port
}

// covers says whether a socket bound to wide gets connections to narrow, too.
func covers(wide, narrow string) bool {
	switch wide {
	case narrow, "::":
		return true
	case "localhost": // net.Listen prefers its IPv4 address
		return narrow == "127.0.0.1"
	case "0.0.0.0":
		ip, err := netip.ParseAddr(narrow)
		return err != nil || ip.Is4()
	}
	return false
}
