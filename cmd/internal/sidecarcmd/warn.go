package sidecarcmd

import (
	"log/slog"

	"github.com/lanyard-mtls/lanyard/sidecar"
)

// warn logs what tunnels may do, but are seldom meant to.
func warn(log *slog.Logger, tunnels []sidecar.Tunnel) {
	for _, t := range tunnels {
		if trustsEverybody(t) {
			log.Warn("clients are verified with the system's authorities: whoever has a certificate of any public one passes for a client, and only the rules tell them apart; give ca_cert (--cacert)",
				"tunnel", t.Name, "listen", t.Listen)
		}
	}
}

// trustsEverybody says that clients of t are verified with the system's authorities, which is what no file of authorities means
// to ghostunnel. That suits clients, which know a server by its name, but few servers.
func trustsEverybody(t sidecar.Tunnel) bool {
	verifies := !t.Policy.DisableAuthentication && len(t.Policy.Pins) == 0
	return t.Mode == sidecar.Server && verifies && !verifiesSVIDs(t) && t.Identity.CACert == ""
}
