package issuercli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func entryUpdate(env *cli.Env) *cobra.Command {
	v := newVerb(env, "update", "Replace what is in entries").withOutput()
	v.Long = "Replace what is in entries. What no flag says is reset to its default, as SPIRE does, but for\n-disableX509SVIDPrefetch and -jwtSVIDIncludeJTI."
	v.Example = "  lanyard issuer entry update -entryID ID -parentID spiffe://example.org/node/db1 -spiffeID spiffe://example.org/db -selector unix:uid:1001"
	var e entryFlags
	e.add(v.Flags())
	v.RunE = func(*cobra.Command, []string) error {
		if e.data == "" && e.entryID == "" {
			return cli.Usagef(`-entryID is missing: the entry to update ("lanyard issuer entry show" lists them)`)
		}
		entries, err := e.entries(v)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			client := entryv1.NewEntryClient(cc)
			if err := e.keepAttributes(ctx, v, client, entries[0]); err != nil {
				return err
			}
			resp := &entryv1.BatchUpdateEntryResponse{}
			for _, batch := range batches(entries) {
				part, err := client.BatchUpdateEntry(ctx, &entryv1.BatchUpdateEntryRequest{Entries: batch})
				if err != nil {
					return err
				}
				for i, r := range part.Results {
					if r.Status.GetCode() != int32(codes.OK) && i < len(batch) {
						r.Entry = batch[i]
					}
				}
				resp.Results = append(resp.Results, part.Results...)
			}
			if err := v.out.Proto(env.Stdout, resp, func(w io.Writer) { printResults(w, env.Stderr, "update", resp.Results) }); err != nil {
				return err
			}
			return v.partly(failed("update", "entries", resp.Results))
		})
	}
	return v.Command
}

// keepAttributes fills in, when one of the two flags for additional attributes is given, the other as it is: the API has no
// mask for each.
func (e *entryFlags) keepAttributes(ctx context.Context, v *verb, client entryv1.EntryClient, entry *types.Entry) error {
	prefetch, jti := v.Flags().Changed("disableX509SVIDPrefetch"), v.Flags().Changed("jwtSVIDIncludeJTI")
	if e.data != "" || !prefetch && !jti {
		return nil
	}
	now, err := client.GetEntry(ctx, &entryv1.GetEntryRequest{Id: e.entryID})
	if err != nil {
		return fmt.Errorf("entry %s, whose attributes are to be kept: %w", e.entryID, err)
	}
	merged := &types.Entry_AdditionalAttributes{DisableX509SvidPrefetch: e.noPrefetch, JwtSvidIncludeJti: e.includeJTI}
	if !prefetch {
		merged.DisableX509SvidPrefetch = now.AdditionalAttributes.GetDisableX509SvidPrefetch()
	}
	if !jti {
		merged.JwtSvidIncludeJti = now.AdditionalAttributes.GetJwtSvidIncludeJti()
	}
	entry.AdditionalAttributes = merged
	return nil
}
