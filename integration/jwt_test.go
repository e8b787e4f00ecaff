package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// jwtStage is an agent of ours, and the clients that fetch and validate JWT-SVIDs at it.
type jwtStage struct {
	*harness.Stage
	issuer *harness.Issuer
	agent  *harness.Agent
	node   string
}

// newJWTStage is one with an issuer, ours or the given spire-server.
func newJWTStage(t *testing.T, server string) jwtStage {
	t.Helper()
	s := harness.NewStage(t, bin)
	issuer := harness.StartIssuer(s, harness.IssuerSpec{SPIREServer: server})
	agent := harness.NewAgent(issuer, harness.AgentSpec{})
	agent.Start(issuer.Token(issuer.ID("/node")))
	return jwtStage{Stage: s, issuer: issuer, agent: agent, node: issuer.ID("/node")}
}

// goSPIFFE fetches with go-spiffe's JWTSource, and has the token validated by its bundles and by the agent.
func (s jwtStage) goSPIFFE(t *testing.T, source *workloadapi.JWTSource, id string) *jwtsvid.SVID {
	t.Helper()
	var svid *jwtsvid.SVID
	s.Until(fetchLimit, "a JWT-SVID for go-spiffe", func(ctx context.Context) (err error) {
		if svid, err = source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "shop", ExtraAudiences: []string{"bank"}}); err != nil {
			return err
		}
		if svid.ID.String() != id || svid.Hint != "internal" {
			return fmt.Errorf("got %s, hint %q", svid.ID, svid.Hint)
		}
		if _, err := jwtsvid.ParseAndValidate(svid.Marshal(), source, []string{"bank"}); err != nil {
			return err
		}
		return s.valid(ctx, svid.Marshal())
	})
	return svid
}

// valid has the agent validate a token.
func (s jwtStage) valid(ctx context.Context, token string) error {
	_, err := workloadapi.ValidateJWTSVID(ctx, token, "shop", workloadapi.WithAddr(s.agent.WorkloadAPI()))
	return err
}

// rotate replaces the key that signs, taints the old one, and wants its tokens to be refused, and replaced.
func (s jwtStage) rotate(t *testing.T, source *workloadapi.JWTSource, id string) {
	t.Helper()
	before := s.goSPIFFE(t, source, id)
	old := s.issuer.ActiveAuthority("jwt")
	s.issuer.Authority("jwt", "activate", s.issuer.Authority("jwt", "prepare", ""))
	s.issuer.Authority("jwt", "taint", old)
	s.Until(fetchLimit, "the agent refuses tokens of the tainted key", func(ctx context.Context) error {
		if err := s.valid(ctx, before.Marshal()); err == nil {
			return errors.New("still valid")
		}
		return nil
	})
	if after := s.goSPIFFE(t, source, id); after.Marshal() == before.Marshal() {
		t.Error("the agent still gives a token of the tainted key")
	}
}

// pyJWT prints the SPIFFE ID of the token it is given, after its bundle and the agent have validated it.
const pyJWT = `
import sys
from spiffe import WorkloadApiClient, JwtSvid
with WorkloadApiClient(sys.argv[1]) as client:
    svid = client.fetch_jwt_svid({"shop"}, timeout=10)
    bundle = client.fetch_jwt_bundles(timeout=10).get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    JwtSvid.parse_and_validate(svid.token, bundle, {"shop"})
    print(client.validate_jwt_svid(svid.token, "shop", timeout=10).spiffe_id)
`

func (s jwtStage) python(python, id string) {
	s.Helper()
	s.Until(fetchLimit, "a JWT-SVID for py-spiffe", func(ctx context.Context) error {
		out, err := harness.Run(ctx, python, "-c", pyJWT, s.agent.WorkloadAPI())
		if got := strings.TrimSpace(out); err == nil && got != id {
			err = fmt.Errorf("got %q, want %s", got, id)
		}
		return err
	})
}

// commands fetches with a command line of SPIRE's verbs, and has it validate. It returns what each printed.
func (s jwtStage) commands(t *testing.T, id, path string, prefix ...string) (fetched, valid string) {
	t.Helper()
	run := func(ctx context.Context, args ...string) (string, error) {
		return harness.Run(ctx, path, append(append(prefix, args...), "-socketPath", s.agent.Socket)...)
	}
	s.Until(fetchLimit, "a JWT-SVID for "+filepath.Base(path), func(ctx context.Context) (err error) {
		fetched, err = run(ctx, "api", "fetch", "jwt", "-audience", "shop,bank", "-spiffeID", id)
		return err
	})
	head := "token(" + id + "):\n\t"
	token, rest, ok := strings.Cut(strings.TrimPrefix(fetched, head), "\n")
	if !ok || !strings.HasPrefix(fetched, head) || !strings.HasPrefix(rest, "bundle(spiffe://"+s.issuer.TrustDomain+"):\n\t{") {
		t.Fatalf("%s printed:\n%s", path, fetched)
	}
	valid, err := run(t.Context(), "api", "validate", "jwt", "-audience", "bank", "-svid", token, "-output", "json")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][2]string{{"else", token}, {"shop", token + "x"}} {
		if _, err := run(t.Context(), "api", "validate", "jwt", "-audience", bad[0], "-svid", bad[1]); harness.ExitCode(err) != 1 || !strings.Contains(err.Error(), "SVID is not valid") {
			t.Errorf("for %s: %v", bad[0], err)
		}
	}
	return fetched, valid
}

// lanyard is our own command line, with the token from standard input too.
func (s jwtStage) lanyard(t *testing.T, id string) {
	t.Helper()
	path := filepath.Join(bin, "lanyard")
	s.issuer.Entry(s.node, id, path)
	fetched, valid := s.commands(t, id, path, "agent")
	var answer struct {
		ID     string `json:"spiffe_id"`
		Claims struct{ Aud []string }
	}
	if err := json.Unmarshal([]byte(valid), &answer); err != nil || answer.ID != id || len(answer.Claims.Aud) != 2 {
		t.Errorf("%v: %s", err, valid)
	}
	cmd := exec.CommandContext(t.Context(), path, "agent", "api", "validate", "jwt", "-audience", "shop", "-svid", "-", "-socketPath", s.agent.Socket)
	cmd.Stdin = strings.NewReader(strings.Split(fetched, "\n")[1])
	out, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(out), "SVID is valid.\nSPIFFE ID : "+id+"\nClaims    : {\"aud\":[\"") {
		t.Errorf("%v: %s", err, out)
	}
}

func (s jwtStage) source(t *testing.T, id string) *workloadapi.JWTSource {
	t.Helper()
	s.issuer.Entry(s.node, id, selfPath(t), "-hint", "internal")
	addr := workloadapi.WithAddr(s.agent.WorkloadAPI())
	s.Until(fetchLimit, "the entry at the agent", func(ctx context.Context) error {
		_, err := workloadapi.FetchJWTBundles(ctx, addr)
		return err
	})
	source, err := workloadapi.NewJWTSource(t.Context(), workloadapi.WithClientOptions(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	return source
}

// TestJWTSVIDsOfOurAgent fetches and validates with go-spiffe and with our own command line, through the taint of a key and an
// issuer that is away.
func TestJWTSVIDsOfOurAgent(t *testing.T) {
	t.Parallel()
	s := newJWTStage(t, "")
	id := s.issuer.ID("/gopher")
	source := s.source(t, id)
	s.rotate(t, source, id)
	s.lanyard(t, s.issuer.ID("/cli"))

	svid := s.goSPIFFE(t, source, id)
	s.issuer.Process.Kill()
	again := s.goSPIFFE(t, source, id)
	if again.Marshal() != svid.Marshal() {
		t.Error("another token, with no issuer")
	}
	if strings.Contains(s.agent.Process.Log.Tail(1<<20), strings.Split(svid.Marshal(), ".")[2]) {
		t.Error("the agent logged a token")
	}
	s.issuer.Start()
	if _, err := source.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: "else"}); err != nil {
		t.Errorf("after the issuer came back: %v", err)
	}
}

func TestJWTSVIDsForPython(t *testing.T) {
	t.Parallel()
	python := pythonBinary(t)
	s := newJWTStage(t, "")
	s.issuer.Entry(s.node, s.issuer.ID("/snake"), pythonPath(t, python))
	s.python(python, s.issuer.ID("/snake"))
}
