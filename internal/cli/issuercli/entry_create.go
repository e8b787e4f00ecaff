package issuercli

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func entryCreate(env *cli.Env) *cobra.Command {
	v := newVerb(env, "create", "Create entries").withOutput()
	v.Long = "Create entries: a workload whose process has all the selectors, on a node whose agent is the parent, gets the SPIFFE ID."
	v.Example = "  lanyard issuer entry create -parentID spiffe://example.org/node/db1 -spiffeID spiffe://example.org/db -selector unix:uid:1000"
	var e entryFlags
	e.add(v.Flags())
	v.Flags().BoolVar(&e.node, "node", false, "the entry is about nodes, by the selectors of their agents; conflicts with -parentID")
	v.RunE = func(*cobra.Command, []string) error {
		entries, err := e.entries(v)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp := &entryv1.BatchCreateEntryResponse{}
			for _, batch := range batches(entries) {
				part, err := entryv1.NewEntryClient(cc).BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: batch})
				if err != nil {
					return err
				}
				for i, r := range part.Results { // SPIRE's answer has no entry for one that failed
					if r.Status.GetCode() != int32(codes.OK) && i < len(batch) {
						r.Entry = batch[i]
					}
				}
				resp.Results = append(resp.Results, part.Results...)
			}
			if err := v.out.Proto(env.Stdout, resp, func(w io.Writer) { printResults(w, env.Stderr, "create", resp.Results) }); err != nil {
				return err
			}
			return v.partly(failed("create", "entries", resp.Results))
		})
	}
	return v.Command
}

// entries gives what -data or the flags describe.
func (e *entryFlags) entries(v *verb) ([]*types.Entry, error) {
	if e.data == "" {
		entry, err := e.entry()
		return []*types.Entry{entry}, err
	}
	if err := onlyData(v.Flags()); err != nil {
		return nil, err
	}
	file, err := v.dataFile(e.data)
	if err != nil {
		return nil, err
	}
	return file.entries(v.env.Stderr)
}
