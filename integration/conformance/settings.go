package conformance

import (
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// adminPath is the path of the operator that admin_ids names; foreignAdmin the one of another trust domain.
const (
	adminPath    = "/conformance/admin"
	foreignAdmin = "spiffe://foreign.test/admin"
)

func mainSettings(t *testing.T, e *env) Settings {
	return Settings{
		AdminIDs:  []string{"spiffe://" + TrustDomain + adminPath, foreignAdmin},
		X509POPCA: e.write(t, "factory.pem", testca.PEM(e.pop.Cert)),
	}
}

// TrustDomain is the trust domain that a target's servers must have.
const TrustDomain = "conformance.test"

// shortSettings make an agent's SVID expire while the checks run.
func shortSettings(*testing.T, *env) Settings { return Settings{AgentTTL: "4s"} }

func noJWTSettings(*testing.T, *env) Settings { return Settings{DisableJWT: true} }

func limitSettings(*testing.T, *env) Settings { return Settings{Limits: true} }

func upstreamSettings(t *testing.T, e *env) Settings { return Settings{Upstream: e.newRoot(t)} }

// newRoot makes an upstream authority, and writes it where the server reads its own.
func (e *env) newRoot(t *testing.T) Files {
	t.Helper()
	root := testca.New(t, TrustDomain)
	e.root = root.Cert
	return Files{Cert: e.write(t, "root.pem", testca.PEM(root.Cert)), Key: e.write(t, "root.key", testca.KeyPEM(t, root.Key))}
}
