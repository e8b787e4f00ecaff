package integration

import (
	"context"
	"fmt"
	"os/user"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// TestTemplateReachesAWorkload makes an entry with an ID template: the agent gives each user the ID that is made of its name,
// as X.509-SVID and as JWT-SVID.
func TestTemplateReachesAWorkload(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spiffeid.FromSegments(spiffeid.RequireTrustDomainFromString("lanyard.test"), "u", me.Username); err != nil {
		t.Skipf("the user's name is no path segment: %v", err)
	}
	s := harness.NewStage(t, bin)
	issuer := harness.StartIssuer(s, harness.IssuerSpec{})
	agent := harness.NewAgent(issuer, harness.AgentSpec{})
	agent.Start(issuer.Token(issuer.ID("/node")))
	issuer.Entry(issuer.ID("/node"), issuer.ID("/u/{{unix:user}}"), selfPath(t))
	id := issuer.ID("/u/" + me.Username)
	fetchSVID(t, agent, id)
	agent.Until(fetchLimit, "a JWT-SVID of the instance", func(ctx context.Context) error {
		svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "shop"}, workloadapi.WithAddr(agent.WorkloadAPI()))
		if err == nil && svid.ID.String() != id {
			err = fmt.Errorf("got %s, want %s", svid.ID, id)
		}
		if err == nil {
			_, err = workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), "shop", workloadapi.WithAddr(agent.WorkloadAPI()))
		}
		return err
	})
}

// TestInteropTemplatesAreKeptFromSPIREAgent wants a real spire-agent, which would choke on a template, to go on with the other
// entries.
func TestInteropTemplatesAreKeptFromSPIREAgent(t *testing.T) {
	t.Parallel()
	spire := peer(t, "spire-agent")
	s := harness.NewStage(t, bin)
	issuer := harness.StartIssuer(s, harness.IssuerSpec{})
	agent := harness.NewAgent(issuer, harness.AgentSpec{SPIREAgent: spire})
	issuer.Entry(issuer.ID("/node"), issuer.ID("/u/{{unix:user}}"), selfPath(t))
	issuer.Entry(issuer.ID("/node"), issuer.ID("/plain"), selfPath(t))
	agent.Start(issuer.Token(issuer.ID("/node")))
	fetchSVID(t, agent, issuer.ID("/plain"))
}
