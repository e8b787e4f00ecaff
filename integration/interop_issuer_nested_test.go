package integration

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// nestedLimit is how long a change at the root may take to reach the issuer below it: SPIRE's asks once in 5 s.
const nestedLimit = 20 * time.Second

func TestInteropSPIREServerBelowOurIssuer(t *testing.T) {
	t.Parallel()
	newNested(t, harness.IssuerSpec{}, harness.IssuerSpec{SPIREServer: peer(t, "spire-server")}, peer(t, "spire-agent")).check()
}

func TestInteropOurIssuerBelowSPIREServer(t *testing.T) {
	t.Parallel()
	newNested(t, harness.IssuerSpec{SPIREServer: peer(t, "spire-server")}, harness.IssuerSpec{}, peer(t, "spire-agent")).check()
}

// TestIssuerBelowIssuer needs no peer: ours below ours, with our agents.
func TestIssuerBelowIssuer(t *testing.T) {
	t.Parallel()
	newNested(t, harness.IssuerSpec{}, harness.IssuerSpec{}, "").check()
}

// nested is an issuer below another, of one trust domain: the one below gets its SVID from an agent of the one above.
type nested struct {
	*testing.T
	root, below *harness.Issuer
	agent       *harness.Agent // of the issuer below
}

func newNested(t *testing.T, root, below harness.IssuerSpec, rootAgent string) nested {
	t.Helper()
	s := harness.NewStage(t, bin)
	n := nested{T: t, root: harness.StartIssuer(s, root)}
	node := n.root.ID("/root-node")
	binary := below.SPIREServer
	if binary == "" {
		binary = bin + "/lanyard"
	}
	n.root.Entry(node, n.root.ID("/nested"), binary, "-downstream") // before the agent: it has it once it is ready
	upstream := harness.NewAgent(n.root, harness.AgentSpec{SPIREAgent: rootAgent})
	upstream.Start(n.root.Token(node))
	host, port, err := net.SplitHostPort(n.root.Addr)
	if err != nil {
		t.Fatal(err)
	}
	below.Plugins += `  UpstreamAuthority "spire" {
    plugin_data {
      server_address      = ` + strconv.Quote(host) + `
      server_port         = ` + strconv.Quote(port) + `
      workload_api_socket = ` + strconv.Quote(upstream.Socket) + `
    }
  }`
	n.below = harness.StartIssuer(s, below)
	n.agent = harness.NewAgent(n.below, harness.AgentSpec{})
	n.agent.Start(n.below.Token(n.below.ID("/node")))
	return n
}

// check follows a workload of the issuer below through a rotation at the root.
func (n nested) check() {
	n.Helper()
	id := n.below.ID("/workload")
	n.below.Entry(n.below.ID("/node"), id, selfPath(n.T))
	svid := fetchSVID(n.T, n.agent, id)
	first := n.root.ActiveAuthority("x509")
	n.signedBy(svid, first)
	if len(svid.Certificates) != 2 {
		n.Errorf("a chain of %d, want the SVID and the authority of the issuer below", len(svid.Certificates))
	}
	n.jwtKeys()
	n.rotate(first)
	later := n.below.ID("/later")
	n.below.Entry(n.below.ID("/node"), later, selfPath(n.T))
	n.signedBy(fetchSVID(n.T, n.agent, later), n.root.ActiveAuthority("x509"))
}

// rotate gives the root a new authority and makes the old one void, as an operator does after a theft.
func (n nested) rotate(first string) {
	n.Helper()
	next := n.root.Authority("x509", "prepare", "")
	n.agent.Until(nestedLimit, "the root's new authority below", func(context.Context) error {
		for _, root := range n.bundle(n.below).X509Authorities() {
			if hex.EncodeToString(root.SubjectKeyId) == next {
				return nil
			}
		}
		return fmt.Errorf("no %s", next)
	})
	n.root.Authority("x509", "activate", next)
	n.root.Authority("x509", "taint", first)
	n.agent.Until(nestedLimit, "an authority below the root's new one", func(ctx context.Context) error {
		out, err := n.below.TryAdmin(ctx, "localauthority", "x509", "show")
		if active, _, _ := strings.Cut(out, "Prepared"); err == nil && !strings.Contains(active, next) {
			err = fmt.Errorf("not below %s: %s", next, active)
		}
		return err
	})
}

// signedBy expects an SVID whose chain ends below the root's authority, by the root's own bundle.
func (n nested) signedBy(svid *x509svid.SVID, authority string) {
	n.Helper()
	if err := below(svid, authority); err != nil {
		n.Error(err)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, n.bundle(n.root)); err != nil {
		n.Error(err)
	}
}

func below(svid *x509svid.SVID, authority string) error {
	last := svid.Certificates[len(svid.Certificates)-1]
	if got := hex.EncodeToString(last.AuthorityKeyId); got != authority {
		return fmt.Errorf("signed by %s, want %s", got, authority)
	}
	return nil
}

// bundle is an issuer's own, as "bundle show" tells it.
func (n nested) bundle(i *harness.Issuer) *x509bundle.Bundle {
	n.Helper()
	bundle, err := x509bundle.Parse(spiffeid.RequireTrustDomainFromString(i.TrustDomain), []byte(i.Admin("bundle", "show")))
	if err != nil {
		n.Fatal(err)
	}
	return bundle
}

// jwtKeys wants the key of the issuer below in the root's bundle, and the root's below: a token of either is good at both.
func (n nested) jwtKeys() {
	n.Helper()
	n.agent.Until(nestedLimit, "the JWT keys of each other", func(context.Context) error {
		root, below := n.root.Admin("bundle", "show", "-format", "spiffe"), n.below.Admin("bundle", "show", "-format", "spiffe")
		for _, key := range []string{n.root.ActiveAuthority("jwt"), n.below.ActiveAuthority("jwt")} {
			if !strings.Contains(root, key) || !strings.Contains(below, key) {
				return fmt.Errorf("key %s: at the root %v, below %v", key, strings.Contains(root, key), strings.Contains(below, key))
			}
		}
		return nil
	})
}
