//go:build noacme

package sidecarcmd

import (
	"log/slog"

	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

// acmeObtainer gives nil: this build gets no certificates from public authorities.
func acmeObtainer() func(identity.ACME, *slog.Logger) (identity.Obtainer, error) { return nil }

func keepACME(*sidecar.Config) {}
