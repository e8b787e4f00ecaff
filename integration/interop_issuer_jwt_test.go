package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

const oidcName = "oidc.test"

// TestInteropJWTSVIDThroughSPIREAgent fetches JWT-SVIDs of our issuer through a real spire-agent, and has them validated by
// go-spiffe, by the agent, and by a stock library of OpenID Connect, also after the signing key was replaced.
func TestInteropJWTSVIDThroughSPIREAgent(t *testing.T) {
	t.Parallel()
	spireAgent := peer(t, "spire-agent")
	s := harness.NewStage(t, bin)
	web := harness.NewAuthority(t, s.Dir, "web.test").Issue(harness.CertSpec{Name: "oidc", DNSNames: []string{oidcName}})
	addr := s.Addr()
	issuer := harness.StartIssuer(s, harness.IssuerSpec{
		Server: "jwt_issuer = \"https://" + oidcName + "\"",
		Blocks: "oidc {\n domains = [\"" + oidcName + "\"]\n listen = " + strconv.Quote(addr) +
			"\n cert_file_path = " + strconv.Quote(web.Cert) + "\n key_file_path = " + strconv.Quote(web.Key) + "\n}\n",
	})
	agent := harness.NewAgent(issuer, harness.AgentSpec{SPIREAgent: spireAgent})
	agent.Start(issuer.Token(issuer.ID("/node")))
	id := spiffeid.RequireFromString(issuer.ID("/gopher"))
	issuer.Entry(issuer.ID("/node"), id.String(), selfPath(t))
	provider := discover(t, addr, web.CA)

	validateJWT(t, agent, provider, id, fetchJWT(t, agent, id, "shop"))
	old := issuer.ActiveAuthority("jwt")
	issuer.Authority("jwt", "activate", issuer.Authority("jwt", "prepare", ""))
	rotated := fetchJWT(t, agent, id, "shop", "bank") // another audience, which the agent has no token for yet
	validateJWT(t, agent, provider, id, rotated)
	issuer.Authority("jwt", "taint", old)
	issuer.Authority("jwt", "revoke", old)
	validateJWT(t, agent, provider, id, fetchJWT(t, agent, id, "shop"))
}

// fetchJWT waits until the agent has the entry.
func fetchJWT(t *testing.T, agent *harness.Agent, id spiffeid.ID, audience string, more ...string) *jwtsvid.SVID {
	t.Helper()
	var svid *jwtsvid.SVID
	agent.Until(fetchLimit, "a JWT-SVID", func(ctx context.Context) (err error) {
		svid, err = workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience, ExtraAudiences: more, Subject: id},
			workloadapi.WithAddr(agent.WorkloadAPI()))
		return err
	})
	return svid
}

// validateJWT wants everybody to take the token: on a real agent a new key may take until its next question to the issuer.
func validateJWT(t *testing.T, agent *harness.Agent, provider *oidc.IDTokenVerifier, id spiffeid.ID, svid *jwtsvid.SVID) {
	t.Helper()
	agent.Until(fetchLimit, "a valid JWT-SVID", func(ctx context.Context) error {
		bundles, err := workloadapi.FetchJWTBundles(ctx, workloadapi.WithAddr(agent.WorkloadAPI()))
		if err != nil {
			return err
		}
		if _, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, []string{"shop"}); err != nil {
			return err
		}
		_, err = workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), "shop", workloadapi.WithAddr(agent.WorkloadAPI()))
		return err
	})
	token, err := provider.Verify(t.Context(), svid.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if token.Subject != id.String() {
		t.Errorf("OpenID Connect says it is %s, want %s", token.Subject, id)
	}
}

// discover is what verifies the tokens of the issuer's OpenID Connect name, whose server is at addr.
func discover(t *testing.T, addr, caFile string) *oidc.IDTokenVerifier {
	t.Helper()
	text, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: transport})
	provider, err := oidc.NewProvider(ctx, "https://"+oidcName)
	if err != nil {
		t.Fatal(err)
	}
	return provider.VerifierContext(ctx, &oidc.Config{ClientID: "shop"})
}
