package issuercli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/debugv1"
)

func debugGetInfo(env *cli.Env) *cobra.Command {
	v := newVerb(env, "getinfo", "Show how long the issuer runs, what it holds, and its own SVID").withOutput()
	v.RunE = func(*cobra.Command, []string) error {
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			info, err := debugv1.NewDebugClient(cc).GetInfo(ctx, &debugv1.GetInfoRequest{})
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, info, func(w io.Writer) { printInfo(w, info) })
		})
	}
	return v.Command
}

func printInfo(w io.Writer, info *debugv1.GetInfoResponse) {
	fmt.Fprintf(w, "Server Debug Info:\n")
	fmt.Fprintf(w, "  Uptime:                  %s\n", time.Duration(info.Uptime)*time.Second)
	fmt.Fprintf(w, "  Registered Agents:       %d\n", info.AgentsCount)
	fmt.Fprintf(w, "  Registration Entries:    %d\n", info.EntriesCount)
	fmt.Fprintf(w, "  Federated Bundles:       %d\n", info.FederatedBundlesCount)
	if len(info.SvidChain) == 0 {
		return
	}
	fmt.Fprintf(w, "  SVID Chain:\n")
	for i, cert := range info.SvidChain {
		id := "(none)"
		if cert.Id != nil {
			id = idString(cert.Id)
		}
		fmt.Fprintf(w, "    [%d] SPIFFE ID:  %s\n", i, id)
		fmt.Fprintf(w, "        Subject:    %s\n", cert.Subject)
		fmt.Fprintf(w, "        Expires At: %s\n", time.Unix(cert.ExpiresAt, 0).UTC().Format(time.RFC3339))
	}
}
