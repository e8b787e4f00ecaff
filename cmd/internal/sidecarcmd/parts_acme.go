//go:build !noacme

package sidecarcmd

import (
	"log/slog"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/identity/acme"
)

// acmeObtainer gives what gets certificates from public authorities.
func acmeObtainer() func(identity.ACME, *slog.Logger) (identity.Obtainer, error) { return acme.New }
