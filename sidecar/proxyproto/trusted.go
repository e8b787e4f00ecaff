package proxyproto

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// Trusted are the addresses whose headers are believed. The zero value trusts nobody.
type Trusted struct {
	prefixes []netip.Prefix
	unix     bool
}

// ParseTrusted reads CIDRs, single addresses, and "unix" for whoever can connect to a UNIX socket. Its errors are joined *setting.Errors
// about key.
func ParseTrusted(key string, cidrs []string) (Trusted, error) {
	var t Trusted
	var errs []error
	for _, s := range cidrs {
		if s == "unix" {
			t.unix = true
			continue
		}
		p, err := netip.ParsePrefix(s)
		if ip, ipErr := netip.ParseAddr(s); ipErr == nil && ip.Zone() == "" {
			p, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		switch {
		case err != nil:
			errs = append(errs, setting.Errorf(key, s, "not a range of addresses: give ADDRESS/BITS, ADDRESS or unix"))
		case p.Addr().Is4In6():
			errs = append(errs, setting.Errorf(key, s, "an IPv4 address written as IPv6: write it as IPv4"))
		case p != p.Masked():
			errs = append(errs, setting.Errorf(key, s, "has bits behind its first %d: give %s or %s", p.Bits(), p.Masked(), p.Addr()))
		default:
			t.prefixes = append(t.prefixes, p)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Trusted{}, err
	}
	return t, nil
}

// IsZero says whether t trusts nobody.
func (t Trusted) IsZero() bool { return len(t.prefixes) == 0 && !t.unix }

// Contains says whether t trusts addr, a connection's remote address.
func (t Trusted) Contains(addr net.Addr) bool {
	switch addr := addr.(type) {
	case *net.UnixAddr:
		return t.unix
	case *net.TCPAddr:
		ip := addr.AddrPort().Addr().Unmap().WithZone("")
		return slices.ContainsFunc(t.prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
	}
	return false
}
