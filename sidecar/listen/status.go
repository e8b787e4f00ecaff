package listen

import (
	"strings"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// StatusAddress is where health and metrics are served.
type StatusAddress struct {
	Address
	// Scheme is http or https if it was given, else empty.
	Scheme string
}

// ParseStatus reads [http[s]://]HOST:PORT, unix:PATH or systemd:NAME. Its error is a *setting.Error about key.
func ParseStatus(key, s string) (StatusAddress, error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found || scheme != "http" && scheme != "https" {
		scheme, rest = "", s
	}
	a, err := Parse(key, rest)
	if e, ok := err.(*setting.Error); ok {
		if e.Value != "" {
			e.Value = s
		}
		return StatusAddress{}, e
	}
	if scheme != "" && a.Network != TCP {
		return StatusAddress{}, setting.Errorf(key, s, "a scheme goes with HOST:PORT only: give %s", a)
	}
	return StatusAddress{a, scheme}, nil
}

// String returns s as ParseStatus takes it.
func (s StatusAddress) String() string {
	if s.Scheme == "" {
		return s.Address.String()
	}
	return s.Scheme + "://" + s.Address.String()
}
