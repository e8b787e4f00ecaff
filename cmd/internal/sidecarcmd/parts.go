package sidecarcmd

import (
	"log/slog"

	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/identity/pkcs11"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

// parts are what libraries bring that a build may leave out. word gives the user's word for a key.
func parts(log *slog.Logger, word func(key string) string) sidecar.Deps {
	return sidecar.Deps{
		Identity: identity.Deps{PKCS11: pkcs11.Opener(), ACME: acmeObtainer()},
		Policy:   policy.Deps{Name: word, Rego: regoEngine(log), Log: log},
	}
}
