package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/conformance"
	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// TestConformanceLanyard runs the suite on the issuer that was built for this run.
func TestConformanceLanyard(t *testing.T) {
	t.Parallel()
	conformance.Run(t, target(conformance.Lanyard, ""))
}

// TestInteropConformanceSPIRE runs it on SPIRE's server, which the suite is written after.
func TestInteropConformanceSPIRE(t *testing.T) {
	t.Parallel()
	conformance.Run(t, target(conformance.SPIRE, peer(t, "spire-server")))
}

// target starts servers for the suite, ours or the spire-server at the path.
func target(kind conformance.Kind, spireServer string) conformance.Target {
	return conformance.Target{Kind: kind, Start: func(t *testing.T, s conformance.Settings) *conformance.Server {
		t.Helper()
		issuer := harness.StartIssuer(harness.NewStage(t, bin), harness.IssuerSpec{
			SPIREServer: spireServer, TrustDomain: conformance.TrustDomain, Server: serverLines(s), Plugins: pluginBlocks(s),
		})
		return &conformance.Server{Addr: issuer.Addr, AdminSocket: issuer.Socket, Restart: issuer.Restart}
	}}
}

// serverLines are the settings as lines of the server block.
func serverLines(s conformance.Settings) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if len(s.AdminIDs) > 0 {
		add(`admin_ids = ["%s"]`, strings.Join(s.AdminIDs, `", "`))
	}
	if s.AgentTTL != "" {
		add("agent_ttl = %q", s.AgentTTL)
	}
	if s.DisableJWT {
		add("disable_jwt_svids = true")
	}
	if !s.Limits {
		add("ratelimit {\n attestation = false\n signing = false\n}")
	}
	return strings.Join(lines, "\n")
}

// pluginBlocks are the settings as blocks of plugins.
func pluginBlocks(s conformance.Settings) string {
	var text string
	if s.X509POPCA != "" {
		text += fmt.Sprintf("NodeAttestor \"x509pop\" {\n plugin_data {\n ca_bundle_path = %q\n }\n}\n", s.X509POPCA)
	}
	if s.Upstream.Cert != "" {
		text += fmt.Sprintf("UpstreamAuthority \"disk\" {\n plugin_data {\n cert_file_path = %q\n key_file_path = %q\n }\n}\n", s.Upstream.Cert, s.Upstream.Key)
	}
	return text
}
