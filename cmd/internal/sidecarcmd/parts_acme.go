//go:build !noacme

package sidecarcmd

import (
	"log/slog"

	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/identity/acme"
)

// acmeObtainer gives what gets certificates from public authorities.
func acmeObtainer() func(identity.ACME, *slog.Logger) (identity.Obtainer, error) { return acme.New }

// keepACME says where certificates from authorities are kept, so that the sandbox leaves it writable. If nobody knows, the
// source says so when it starts.
func keepACME(cfg *sidecar.Config) {
	for i := range cfg.Tunnels {
		if c := &cfg.Tunnels[i].Identity.ACME; c.FQDN != "" {
			c.Storage, _ = acme.DefaultStorage()
		}
	}
}
