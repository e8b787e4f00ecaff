package agentcli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// svid is one X.509-SVID of an answer, ready to print and write.
type svid struct {
	id, hint  string
	chain     []*x509.Certificate
	key       []byte // PKCS#8
	bundle    []*x509.Certificate
	federated []federated // by name
}

type federated struct {
	name   string
	bundle []*x509.Certificate
}

// parse reads an answer of the Workload API and verifies each SVID against the bundle that came with it: what is printed
// and written works.
func parse(resp *workloadpb.X509SVIDResponse) ([]*svid, error) {
	if len(resp.Svids) == 0 {
		return nil, errors.New("it holds no SVID")
	}
	var foreign []federated
	for _, name := range slices.Sorted(maps.Keys(resp.FederatedBundles)) {
		certs, err := x509.ParseCertificates(resp.FederatedBundles[name])
		if err != nil {
			return nil, fmt.Errorf("bundle of %s: %w", name, err)
		}
		foreign = append(foreign, federated{name, certs})
	}
	var svids []*svid
	for _, m := range resp.Svids {
		parsed, err := x509svid.ParseRaw(m.X509Svid, m.X509SvidKey)
		if err != nil {
			return nil, fmt.Errorf("SVID of %s: %w", m.SpiffeId, err)
		}
		bundle, err := x509bundle.ParseRaw(parsed.ID.TrustDomain(), m.Bundle)
		if err != nil {
			return nil, fmt.Errorf("bundle of %s: %w", parsed.ID.TrustDomain(), err)
		}
		if _, _, err := x509svid.Verify(parsed.Certificates, bundle); err != nil {
			return nil, fmt.Errorf("SVID of %s: %w", m.SpiffeId, err)
		}
		svids = append(svids, &svid{
			id: m.SpiffeId, hint: m.Hint, chain: parsed.Certificates, key: m.X509SvidKey,
			bundle: bundle.X509Authorities(), federated: foreign,
		})
	}
	return svids, nil
}

// fromContext is parse for what is parsed already; the keys stay behind. spire-agent's watch has the bare names of trust
// domains, and no hints.
func fromContext(env *cli.Env, c *workload.X509Context) []*svid {
	name := spiffeid.TrustDomain.IDString
	if env.Dialect == cli.SPIREAgent {
		name = spiffeid.TrustDomain.Name
	}
	var svids []*svid
	for _, s := range c.SVIDs {
		one := &svid{id: s.ID.String(), chain: s.Certificates}
		if env.Dialect != cli.SPIREAgent {
			one.hint = s.Hint
		}
		domains := slices.SortedFunc(maps.Keys(c.Bundles), spiffeid.TrustDomain.Compare)
		for _, td := range domains {
			certs := c.Bundles[td].X509Authorities()
			if td == s.ID.TrustDomain() {
				one.bundle = certs
				continue
			}
			one.federated = append(one.federated, federated{name(td), certs})
		}
		svids = append(svids, one)
	}
	return svids
}

// printSVIDs writes SPIRE's text for an answer.
func printSVIDs(w io.Writer, svids []*svid, took time.Duration) {
	plural := "s"
	if len(svids) == 1 {
		plural = ""
	}
	fmt.Fprintf(w, "Received %d svid%s after %s\n", len(svids), plural, took)
	for _, s := range svids {
		fmt.Fprintf(w, "\nSPIFFE ID:\t\t%s\n", s.id)
		if s.hint != "" {
			fmt.Fprintf(w, "Hint:\t\t\t%s\n", s.hint)
		}
		fmt.Fprintf(w, "SVID Valid After:\t%v\nSVID Valid Until:\t%v\n", s.chain[0].NotBefore, s.chain[0].NotAfter)
		printLives(w, "Intermediate", s.chain[1:])
		printLives(w, "CA", s.bundle)
		for _, f := range s.federated {
			printLives(w, "["+f.name+"] CA", f.bundle)
		}
	}
	fmt.Fprintln(w)
}

func printLives(w io.Writer, what string, certs []*x509.Certificate) {
	for i, c := range certs {
		fmt.Fprintf(w, "%s #%d Valid After:\t%v\n%s #%d Valid Until:\t%v\n", what, i+1, c.NotBefore, what, i+1, c.NotAfter)
	}
}

func raw(certs []*x509.Certificate) [][]byte {
	var ders [][]byte
	for _, c := range certs {
		ders = append(ders, c.Raw)
	}
	return ders
}
