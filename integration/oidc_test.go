package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// A relying party with a stock OpenID Connect library, which knows of SPIFFE nothing, verifies the tokens of a running
// issuer, through a rotation and up to a revocation.
func TestOIDCClientsVerifyOurTokens(t *testing.T) {
	t.Parallel()
	s := harness.NewStage(t, bin)
	addr := s.Addr()
	web := harness.NewAuthority(t, s.Dir, "web.test").Issue(harness.CertSpec{Name: "oidc", IPs: []string{"127.0.0.1"}})
	url := "https://" + addr
	issuer := harness.StartIssuer(s, harness.IssuerSpec{Server: fmt.Sprintf(`
  jwt_issuer = %q
}
oidc { # a block of its own
  domains        = ["127.0.0.1"]
  listen         = %q
  cert_file_path = %q
  key_file_path  = %q
`, url, addr, web.Cert, web.Key)})
	mint := func() string {
		return strings.TrimSpace(issuer.Admin("jwt", "mint", "-spiffeID", issuer.ID("/web"), "-audience", "shop"))
	}
	authority := func(verb string, args ...string) string {
		t.Helper()
		out := issuer.Admin(append([]string{"localauthority", "jwt", verb, "-output", "json"}, args...)...)
		var answer struct {
			Active struct {
				ID string `json:"authority_id"`
			} `json:"active"`
			Prepared struct {
				ID string `json:"authority_id"`
			} `json:"prepared_authority"`
		}
		if err := json.Unmarshal([]byte(out), &answer); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return answer.Active.ID + answer.Prepared.ID
	}

	client := httpsClient(t, web.CA)
	long := verifier(t, client, url, "shop")
	before := mint()
	if got, err := long.Verify(t.Context(), before); err != nil || got.Subject != issuer.ID("/web") {
		t.Fatalf("verified %+v, %v", got, err)
	}
	if _, err := verifier(t, client, url, "bank").Verify(t.Context(), before); err == nil {
		t.Error("a token for another audience was taken")
	}

	old := authority("show")
	prepared := authority("prepare")
	authority("activate", "-authorityID", prepared)
	for when, token := range map[string]string{"before": before, "after": mint()} {
		if _, err := long.Verify(t.Context(), token); err != nil {
			t.Errorf("a token of %s the rotation: %v", when, err)
		}
	}
	authority("taint", "-authorityID", old)
	if _, err := verifier(t, client, url, "shop").Verify(t.Context(), before); err != nil {
		t.Errorf("a token of a tainted authority, which is not revoked yet: %v", err)
	}
	authority("revoke", "-authorityID", old)
	if _, err := verifier(t, client, url, "shop").Verify(t.Context(), before); err == nil {
		t.Error("a token of a revoked authority was taken")
	}
	if _, err := verifier(t, client, url, "shop").Verify(t.Context(), mint()); err != nil {
		t.Errorf("a token after the revocation: %v", err)
	}
}

// verifier discovers the issuer at url.
func verifier(t *testing.T, client *http.Client, url, audience string) *oidc.IDTokenVerifier {
	t.Helper()
	ctx := oidc.ClientContext(context.WithoutCancel(t.Context()), client)
	provider, err := oidc.NewProvider(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	return provider.VerifierContext(ctx, &oidc.Config{ClientID: audience})
}

// httpsClient trusts the authority in the file alone.
func httpsClient(t *testing.T, file string) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("no certificate in %s", file)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: fetchLimit}
}
