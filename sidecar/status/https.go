package status

import (
	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// UsesHTTPS reports whether the port at a is to be served over HTTPS: TCP is,
// unless the address begins with http://, or if no tunnel ever has a certificate to
// show (certificates is false) and the address does not begin with https:// either.
// If it does, that is an error about key, and not a reason to fall back to plain
// HTTP, as ghostunnel does.
func UsesHTTPS(key string, a listen.StatusAddress, certificates bool) (bool, error) {
	switch {
	case a.Network != listen.TCP || a.Scheme == "http":
		return false, nil
	case !certificates && a.Scheme == "https":
		return false, setting.Errorf(key, a.String(), "needs a certificate, and no tunnel has one to show: give http://%s", a.Address.Address)
	}
	return certificates, nil
}
