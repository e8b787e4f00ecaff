package agentcli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentdebugv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func debugGetInfo(env *cli.Env) *cobra.Command {
	v := newAdminVerb(env, "getinfo", "Show how long the agent runs, when it last heard from its issuer, what it holds, and its own SVID")
	v.RunE = spireErrors(env, "Error: ", func() error {
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			info, err := agentdebugv1.NewDebugClient(cc).GetInfo(ctx, &agentdebugv1.GetInfoRequest{})
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, info, func(w io.Writer) { printInfo(w, info) })
		})
	})
	return v.Command
}

// printInfo writes SPIRE's text.
func printInfo(w io.Writer, info *agentdebugv1.GetInfoResponse) {
	last := "(never)"
	if info.LastSyncSuccess != 0 {
		last = utc(info.LastSyncSuccess)
	}
	fmt.Fprintf(w, "Agent Debug Info:\n")
	fmt.Fprintf(w, "  Uptime:                          %s\n", time.Duration(info.Uptime)*time.Second)
	fmt.Fprintf(w, "  Last Sync Success:               %s\n", last)
	fmt.Fprintf(w, "  Cached X.509 SVIDs:              %d\n", info.CachedX509SvidsCount)
	fmt.Fprintf(w, "  Cached JWT SVIDs:                %d\n", info.CachedJwtSvidsCount)
	fmt.Fprintf(w, "  Cached SVID Store X.509 SVIDs:   %d\n", info.CachedSvidstoreX509SvidsCount)
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
		fmt.Fprintf(w, "        Expires At: %s\n", utc(cert.ExpiresAt))
	}
}

func utc(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

func idString(id *types.SPIFFEID) string { return "spiffe://" + id.TrustDomain + id.Path }
