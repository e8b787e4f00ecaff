package sdscmd

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/sds"
)

func bootstrapVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bootstrap [flags]",
		Short: "Print an Envoy configuration that takes its certificates by SDS",
		Long: `Print a working Envoy bootstrap configuration (v3, YAML): a listener with mutual TLS in (-inbound...), one with mutual
TLS out (-outbound...), or both, whose certificates come by SDS from the agent or from "lanyard sds run".`,
		Example: `  lanyard sds bootstrap -inboundListen 0.0.0.0:8443 -inboundTarget 127.0.0.1:8080 -inboundPeer spiffe://example.org/web > envoy.yaml
  envoy -c envoy.yaml`,
		DisableFlagsInUseLine: true,
	}
	opts := sds.BootstrapOptions{}
	var in, out leg
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&opts.SDSSocket, "sdsSocket", env.WorkloadSocket(), "`PATH` of the socket that serves SDS, the agent's or that of lanyard sds")
	in.add(fs, "inbound", "IP:PORT or unix:/PATH to take mutual TLS on", "HOST:PORT or unix:/PATH of the program")
	out.add(fs, "outbound", "IP:PORT or unix:/PATH to take plaintext on", "HOST:PORT or unix:/PATH to send mutual TLS to")
	fs.StringVar(&opts.NodeID, "nodeID", "", "`ID` of this Envoy in the SDS server's log (default envoy)")
	fs.StringVar(&opts.Cluster, "cluster", "", "`NAME` of the cluster this Envoy is one of (default lanyard)")
	fs.StringVar(&opts.Admin, "admin", "", "loopback `IP:PORT` of Envoy's admin interface (default none)")
	fs.StringVar(&opts.SVIDName, "svidName", "", "`NAME` of the secret to present: a SPIFFE ID, or default for the first (default default)")
	fs.StringVar(&opts.BundleName, "bundleName", "", "`NAME` of the secret to verify with: ROOTCA, ALL or a trust domain's SPIFFE ID (default ROOTCA)")
	fs.BoolVar(&opts.StateOfTheWorld, "sotw", false, "take secrets by StreamSecrets, as SPIRE's agent needs it, instead of DeltaSecrets")
	fs.BoolVar(&opts.PlainTrustedCA, "plainTrustedCA", false, "do without Envoy's SPIFFE certificate validator")
	cmd.RunE = func(*cobra.Command, []string) error {
		var inErr, outErr error
		opts.Inbound, inErr = in.leg("inbound")
		opts.Outbound, outErr = out.leg("outbound")
		if err := errors.Join(inErr, outErr); err != nil {
			return cli.Usagef("%v", err)
		}
		if opts.Inbound == nil && opts.Outbound == nil {
			return cli.Usagef("nothing to configure: give -inboundListen and -inboundTarget, -outboundListen and -outboundTarget, or all")
		}
		if err := sds.Bootstrap(env.Stdout, opts); err != nil {
			return cli.Usagef("%v", err)
		}
		return nil
	}
	return cmd
}

// leg are the flags of one direction.
type leg struct {
	listen, target, domain string
	peers                  cli.Strings
}

func (l *leg) add(fs *pflag.FlagSet, name, listen, target string) {
	fs.StringVar(&l.listen, name+"Listen", "", "`ADDR`: "+listen)
	fs.StringVar(&l.target, name+"Target", "", "`ADDR`: "+target)
	fs.Var(&l.peers, name+"Peer", "SPIFFE `ID` the other end of the TLS connection may have; may be given more than once")
	fs.StringVar(&l.domain, name+"TrustDomain", "", "`NAME` of the trust domain the other end may be of; conflicts with -"+name+"Peer")
}

// leg gives what the flags describe; nil if none is given.
func (l *leg) leg(name string) (*sds.Leg, error) {
	if l.listen == "" && l.target == "" && l.domain == "" && len(l.peers) == 0 {
		return nil, nil
	}
	made := &sds.Leg{Listen: l.listen, Target: l.target}
	var errs []error
	for _, p := range l.peers {
		id, err := spiffeid.FromString(p)
		if err != nil {
			errs = append(errs, cli.Usagef("-%sPeer %q is no SPIFFE ID: %v", name, p, err))
		}
		made.Peers = append(made.Peers, id)
	}
	if l.domain != "" {
		td, err := spiffeid.TrustDomainFromString(l.domain)
		if err != nil {
			errs = append(errs, cli.Usagef("-%sTrustDomain %q: %v", name, l.domain, err))
		}
		made.TrustDomain = td
	}
	return made, errors.Join(errs...)
}
