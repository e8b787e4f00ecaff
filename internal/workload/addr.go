package workload

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
)

// AddrEnv names the environment variable with the Workload API's address
// (SPIFFE Workload Endpoint, section 4).
const AddrEnv = "SPIFFE_ENDPOINT_SOCKET"

// ErrNoAddr is returned for an empty address when AddrEnv is unset or empty.
var ErrNoAddr = errors.New("no Workload API address: give one or set " + AddrEnv)

// Addr is where a Workload API listens, as net.Dial takes it.
type Addr struct {
	Network string // "unix" or "tcp"
	Address string // absolute path, or IP:PORT
}

// String returns the address as a URI, the form ParseAddr reads.
func (a Addr) String() string {
	if a.Network == "unix" {
		return "unix://" + a.Address
	}
	return a.Network + "://" + a.Address
}

// ParseAddr reads unix:///path, unix:/path or tcp://IP:PORT (SPIFFE Workload
// Endpoint, section 4). Nothing but scheme and path, or scheme, IP address and
// port may be set. An empty s means the value of AddrEnv.
func ParseAddr(s string) (Addr, error) {
	if s == "" {
		s = os.Getenv(AddrEnv)
	}
	if s == "" {
		return Addr{}, ErrNoAddr
	}
	u, err := url.Parse(s)
	if err != nil {
		return Addr{}, addrError(s, "is not a URI")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return Addr{}, addrError(s, "has user info, a query or a fragment")
	}
	switch u.Scheme {
	case "unix":
		return parseUnix(s, u)
	case "tcp":
		return parseTCP(s, u)
	default:
		return Addr{}, addrError(s, "has neither scheme unix nor tcp")
	}
}

func parseUnix(s string, u *url.URL) (Addr, error) {
	switch {
	case u.Host != "":
		return Addr{}, addrError(s, "has a host: unix needs three slashes")
	case u.Opaque != "" || !filepath.IsAbs(u.Path):
		return Addr{}, addrError(s, "has no absolute path")
	}
	return Addr{Network: "unix", Address: u.Path}, nil
}

func parseTCP(s string, u *url.URL) (Addr, error) {
	if u.Opaque != "" || u.Path != "" {
		return Addr{}, addrError(s, "has something besides IP address and port")
	}
	ap, err := netip.ParseAddrPort(u.Host)
	if err != nil || ap.Port() == 0 {
		return Addr{}, addrError(s, "has no IP address and port")
	}
	return Addr{Network: "tcp", Address: ap.String()}, nil
}

// AddrError says what is wrong with the address of a Workload API.
type AddrError struct{ Addr, Problem string }

// Error implements error.
func (e *AddrError) Error() string {
	return fmt.Sprintf("address %q of the Workload API %s", e.Addr, e.Problem)
}

func addrError(s, what string) error {
	return &AddrError{Addr: s, Problem: what + ": use unix:///PATH or tcp://IP:PORT"}
}
