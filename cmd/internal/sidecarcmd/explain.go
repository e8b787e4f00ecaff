package sidecarcmd

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

// explainFlags are those of explain.
type explainFlags struct {
	fileFlags
	peer, cert, tunnel, own, serverName, clientAddr string
	json                                            bool
}

func explainVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain -config FILE -peer ID [-tunnel NAME] [flags]",
		Short: "Tell whether a peer may use a tunnel, and by which rule",
		Long: `Tell whether a peer may use a tunnel of a configuration file, by which rule, and what would have to change. Nothing is
connected to; certificates and their issuers are not looked at.

Exit code 0: allowed. 1: refused. 2: it can't be told, as the file or the command line is wrong.`,
		Example: `  lanyard sidecar explain -config sidecar.hcl -tunnel web -peer spiffe://example.org/frontend
  lanyard sidecar explain -config sidecar.hcl -tunnel partner -cert server.pem -json`,
		DisableFlagsInUseLine: true,
	}
	f := &explainFlags{fileFlags: fileFlags{env: env}}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.config, "config", "", "configuration `FILE` (required)")
	fs.BoolVar(&f.expandEnv, "expandEnv", false, "replace $NAME and ${NAME} in the file by the environment")
	fs.StringVar(&f.tunnel, "tunnel", "", "`NAME` of the tunnel (default the only one)")
	fs.StringVar(&f.peer, "peer", "", "SPIFFE `ID` of the peer; this or -cert is required")
	fs.StringVar(&f.cert, "cert", "", "PEM `FILE` with the peer's certificate, for rules about other names in it")
	fs.StringVar(&f.own, "own", "", "this end's SPIFFE `ID` (default the tunnel's identity.spiffe_id); for own_trust_domain and patterns without a trust domain")
	fs.StringVar(&f.serverName, "serverName", "", "`NAME` that the client asks for (SNI), for rego")
	fs.StringVar(&f.clientAddr, "clientAddr", "", "`IP:PORT` the client comes from, for rego")
	fs.BoolVar(&f.json, "json", false, "answer in one line of JSON")
	cmd.RunE = func(*cobra.Command, []string) error {
		allowed, err := f.explain(cmd.Context())
		switch {
		case err != nil:
			return cli.ExitCode(err, 2)
		case !allowed:
			return cli.Printed()
		}
		return nil
	}
	return cmd
}

// explain prints the decision.
func (f *explainFlags) explain(ctx context.Context) (allowed bool, err error) {
	s, err := f.settings()
	if err != nil {
		return false, err
	}
	t, err := f.pick(s.cfg.Tunnels)
	if err != nil {
		return false, err
	}
	r, err := f.request(t)
	if err != nil {
		return false, err
	}
	p, err := policy.Compile(rules(t), parts(slog.New(slog.DiscardHandler), nil).Policy)
	if err == nil {
		err = policy.Reload(ctx, p)
	}
	if err != nil {
		return false, s.inFile(err)
	}
	d := p.Decide(ctx, r)
	if f.json {
		return d.Allowed, f.printJSON(r, d)
	}
	_, err = io.WriteString(f.env.Stdout, policy.Explain(ctx, p, r))
	return d.Allowed, err
}

// rules are the policy of t with what the sidecar knows of t.
func rules(t sidecar.Tunnel) policy.Config {
	c := t.Policy
	c.Direction = string(t.Mode.Direction())
	c.HostName = t.Mode == sidecar.Client && t.Identity.WorkloadAPI == "" && len(t.Identity.TrustBundles) == 0
	return c
}

// pick gives the tunnel that is asked about.
func (f *explainFlags) pick(tunnels []sidecar.Tunnel) (sidecar.Tunnel, error) {
	var names []string
	for _, t := range tunnels {
		if t.Name == f.tunnel || f.tunnel == "" && len(tunnels) == 1 {
			return t, nil
		}
		names = append(names, t.Name)
	}
	list := strings.Join(names, ", ")
	if f.tunnel == "" {
		return sidecar.Tunnel{}, cli.Usagef("-tunnel is missing: %s has %s", f.config, list)
	}
	if near := suggest.Closest(f.tunnel, names); near != "" {
		return sidecar.Tunnel{}, cli.Usagef("-tunnel %q is not in %s; did you mean %q?", f.tunnel, f.config, near)
	}
	return sidecar.Tunnel{}, cli.Usagef("-tunnel %q is not in %s; it has %s", f.tunnel, f.config, list)
}

// request is what the tunnel would ask its policy.
func (f *explainFlags) request(t sidecar.Tunnel) (r policy.Request, err error) {
	r = policy.Request{Own: t.Identity.SPIFFEID, Tunnel: t.Name, Direction: string(t.Mode.Direction()), ServerName: f.serverName, ClientAddr: f.clientAddr,
		Listen: t.Listen, Target: t.Target}
	if f.own != "" {
		if r.Own, err = spiffeid.FromString(f.own); err != nil {
			return r, cli.Usagef("-own %q is no SPIFFE ID: %v", f.own, err)
		}
	}
	if f.peer == "" && f.cert == "" {
		return r, cli.Usagef("-peer is missing: give the SPIFFE ID to ask about, or its certificate with -cert")
	}
	var id spiffeid.ID
	if f.peer != "" {
		if id, err = spiffeid.FromString(f.peer); err != nil {
			return r, cli.Usagef("-peer %q is no SPIFFE ID: %v", f.peer, err)
		}
	}
	if f.cert != "" {
		if r.Certificate, err = readCertificate(f.cert); err != nil {
			return r, fmt.Errorf("-cert %s: %w", f.cert, err)
		}
	}
	if f.cert == "" && len(t.Policy.Pins) > 0 {
		return r, cli.Usagef("-cert is missing: this tunnel knows its peers by their public key")
	}
	return r, f.named(&r, id, verifiesSVIDs(t))
}

// verifiesSVIDs says that t knows its peers by SPIFFE ID. To others, it is one of the names in a certificate.
func verifiesSVIDs(t sidecar.Tunnel) bool {
	return len(t.Policy.Pins) == 0 && (t.Identity.WorkloadAPI != "" || len(t.Identity.TrustBundles) > 0)
}

// named puts id, or else that of the certificate, into r as the handshake would.
func (f *explainFlags) named(r *policy.Request, id spiffeid.ID, svids bool) error {
	switch {
	case svids && r.Certificate != nil:
		of, err := x509svid.IDFromCert(r.Certificate)
		if err != nil {
			return fmt.Errorf("-cert %s is no X.509-SVID, which this tunnel wants: %w", f.cert, err)
		}
		if !id.IsZero() && id != of {
			return cli.Usagef("-peer %s and -cert %s, which is that of %s: drop one", id, f.cert, of)
		}
		r.Peer = of
	case svids:
		r.Peer = id
	case r.Certificate == nil:
		r.Certificate = &x509.Certificate{URIs: []*url.URL{id.URL()}}
	case !id.IsZero() && !slices.ContainsFunc(r.Certificate.URIs, func(u *url.URL) bool { return u.String() == id.String() }):
		return cli.Usagef("-peer %s is not among the names in -cert %s: drop one", id, f.cert)
	}
	return nil
}

// maxCertificate bounds a file with certificates, in bytes.
const maxCertificate = 1 << 20

// readCertificate reads the first certificate of a PEM file.
func readCertificate(path string) (*x509.Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCertificate))
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("there is no certificate in it: give a PEM file with one")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
}

// explained is the answer as JSON.
type explained struct {
	Allowed bool   `json:"allowed"`
	Tunnel  string `json:"tunnel"`
	Peer    string `json:"peer,omitempty"`
	Own     string `json:"own,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func (f *explainFlags) printJSON(r policy.Request, d policy.Decision) error {
	return json.NewEncoder(f.env.Stdout).Encode(explained{d.Allowed, r.Tunnel, r.Peer.String(), r.Own.String(), d.Rule, d.Reason})
}
