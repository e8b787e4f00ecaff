// Package listen owns the addresses a sidecar is given, and the sockets it waits on: TCP, UNIX and those that systemd
// hands over. It accepts nothing and dials nothing.
package listen

import (
	"net"
	"strconv"
	"strings"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// The kinds of Address.
const (
	TCP     = "tcp"
	UNIX    = "unix"
	Systemd = "systemd"
)

// Address is where a sidecar listens, or what it dials. The zero value is no address. Addresses can be compared.
type Address struct {
	// Network is TCP, UNIX or Systemd.
	Network string
	// Address is HOST:PORT as it was given (the host may be empty or a name, the port may be one too), a path (or @NAME, an abstract
	// socket, which can only be dialled), or a socket unit's FileDescriptorName.
	Address string
}

// forms are what Parse takes, for messages.
const forms = "HOST:PORT, unix:PATH or systemd:NAME"

// Parse reads HOST:PORT, unix:PATH or systemd:NAME. It resolves nothing. Its error is a *setting.Error about key.
func Parse(key, s string) (Address, error) {
	if s == "" {
		return Address{}, setting.Errorf(key, "", "is missing: give %s", forms)
	}
	switch kind, rest, _ := strings.Cut(s, ":"); kind {
	case UNIX:
		return parsePath(key, s, rest)
	case Systemd:
		if rest == "" {
			return Address{}, setting.Errorf(key, s, "the name is missing: give systemd:NAME with the FileDescriptorName= of the socket unit")
		}
		return Address{Systemd, rest}, nil
	case "launchd":
		return Address{}, setting.Errorf(key, s, "launchd is macOS only: give %s", forms)
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return Address{}, setting.Errorf(key, s, "not an address: give %s", forms)
	}
	if err := checkPort(port); err != "" {
		return Address{}, setting.Errorf(key, s, "%s", err)
	}
	return Address{TCP, s}, nil
}

// maxPath is the longest path a socket address holds (unix(7)), without the zero at its end.
const maxPath = 107

func parsePath(key, s, path string) (Address, error) {
	switch {
	case path == "":
		return Address{}, setting.Errorf(key, s, "the path is missing: give unix:PATH")
	case strings.ContainsRune(path, 0):
		return Address{}, setting.Errorf(key, "", "the path has a zero byte in it: give unix:PATH")
	case len(path) > maxPath:
		return Address{}, setting.Errorf(key, s, "the path is %d bytes long, the kernel takes at most %d: choose a shorter one", len(path), maxPath)
	}
	return Address{UNIX, path}, nil
}

// checkPort says what is wrong with port. A service's name is for Address.Port to judge, which knows /etc/services.
func checkPort(port string) string {
	if port == "" {
		return "the port is missing: give HOST:PORT"
	}
	const digits, letters = "0123456789", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if strings.ContainsAny(port, letters) && strings.Trim(port, digits+letters+"+-._*") == "" {
		return ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return strconv.Quote(port) + " is not a port: give a number up to 65535"
	}
	return ""
}

// String returns a as Parse takes it.
func (a Address) String() string {
	if a.Network == TCP || a.Network == "" {
		return a.Address
	}
	return a.Network + ":" + a.Address
}

// LocalForms are what IsLocal takes to be local, for messages.
const LocalForms = "127.0.0.1:PORT, [::1]:PORT, localhost:PORT, unix:PATH or systemd:NAME"

// IsLocal says whether a is local by its spelling, as ghostunnel judges it, so that no name resolution decides about safety.
func (a Address) IsLocal() bool {
	switch a.Network {
	case UNIX, Systemd:
		return true
	case TCP:
		for _, prefix := range []string{"127.0.0.1:", "[::1]:", "localhost:"} {
			if strings.HasPrefix(a.Address, prefix) {
				return true
			}
		}
	}
	return false
}

// IsDialable says whether a can be connected to: sockets from systemd can only be waited on.
func (a Address) IsDialable() bool { return a.Network == TCP || a.Network == UNIX }

// CheckListenable returns an error about key if a can't be listened on: anybody could connect to an abstract socket.
func (a Address) CheckListenable(key string) error {
	if a.Network == UNIX && strings.HasPrefix(a.Address, "@") {
		return setting.Errorf(key, a.String(), "abstract sockets have no mode, any user could connect: give unix:PATH")
	}
	return nil
}

// IsZero says whether a is no address.
func (a Address) IsZero() bool { return a == Address{} }

// ServerName returns the host of a if it is a name, else nothing: SNI has no addresses (RFC 6066, section 3).
func (a Address) ServerName() string {
	host, _, err := net.SplitHostPort(a.Address)
	if a.Network != TCP || err != nil || net.ParseIP(host) != nil || strings.ContainsAny(host, "%:") {
		return ""
	}
	return host
}

// Port returns the port of a TCP address, 0 for the others. A name is looked up in /etc/services.
func (a Address) Port() (uint16, error) {
	if a.Network != TCP {
		return 0, nil
	}
	_, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return 0, err
	}
	n, err := net.LookupPort(TCP, port)
	return uint16(n), err
}
