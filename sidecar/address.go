package sidecar

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// localForms are the addresses taken to be local, as ghostunnel takes them: by
// their spelling, so that no name resolution decides about safety.
const localForms = "127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH"

func isLocal(addr string) bool {
	for _, prefix := range []string{"unix:", "127.0.0.1:", "[::1]:", "localhost:"} {
		if strings.HasPrefix(addr, prefix) {
			return true
		}
	}
	return false
}

// endpoint is an address as net.Dial and net.Listen take it.
type endpoint struct{ network, address string }

// parseEndpoint reads HOST:PORT or unix:PATH. The error names flag.
func parseEndpoint(flag, s string) (endpoint, error) {
	if s == "" {
		return endpoint{}, fmt.Errorf("%s is missing: give HOST:PORT or unix:PATH", flag)
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			return endpoint{}, fmt.Errorf("%s %s: the path is missing: give unix:PATH", flag, s)
		}
		return endpoint{"unix", path}, nil
	}
	for _, kind := range []string{"systemd:", "launchd:"} {
		if strings.HasPrefix(s, kind) {
			return endpoint{}, fmt.Errorf("%s %s: %s sockets are not supported: give HOST:PORT or unix:PATH", flag, s, strings.TrimSuffix(kind, ":"))
		}
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return endpoint{}, fmt.Errorf("%s %s: not an address: give HOST:PORT or unix:PATH", flag, s)
	}
	// A service name is for the resolver to judge.
	if _, err := strconv.ParseUint(port, 10, 16); err != nil && strings.Trim(port, "+-.0123456789") == "" {
		return endpoint{}, fmt.Errorf("%s %s: %q is not a port: give a number up to 65535", flag, s, port)
	}
	return endpoint{"tcp", s}, nil
}

// parseStatus reads [http://]HOST:PORT or unix:PATH.
func parseStatus(s string) (endpoint, error) {
	rest, hadScheme := strings.CutPrefix(s, "http://")
	if strings.HasPrefix(s, "https://") {
		return endpoint{}, fmt.Errorf("--status %s: served over plain HTTP only: use http://HOST:PORT or unix:PATH", s)
	}
	if hadScheme && strings.HasPrefix(rest, "unix:") {
		return endpoint{}, fmt.Errorf("--status %s: a scheme goes with HOST:PORT only: use unix:PATH", s)
	}
	return parseEndpoint("--status", rest)
}
