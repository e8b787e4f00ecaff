package issuercli

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
)

func entryDelete(env *cli.Env) *cobra.Command {
	v := newVerb(env, "delete", "Delete entries").withOutput()
	var id, file string
	v.Flags().StringVar(&id, "entryID", "", "`ID` of the entry")
	v.Flags().StringVar(&file, "file", "", `JSON `+"`FILE`"+` with {"ids": ["…"]}, - for standard input; conflicts with -entryID`)
	v.RunE = func(*cobra.Command, []string) error {
		ids, err := idsToDelete(v, id, file)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp := &entryv1.BatchDeleteEntryResponse{}
			for batch := range slices.Chunk(ids, batchSize) {
				part, err := entryv1.NewEntryClient(cc).BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: batch})
				if err != nil {
					return err
				}
				resp.Results = append(resp.Results, part.Results...)
			}
			if err := v.out.Proto(env.Stdout, resp, func(w io.Writer) { printDeleted(w, env.Stderr, resp.Results) }); err != nil {
				return err
			}
			return v.partly(failed("delete", "entries", resp.Results))
		})
	}
	return v.Command
}

func idsToDelete(v *verb, id, file string) ([]string, error) {
	switch {
	case id != "" && file != "":
		return nil, cli.Usagef("-entryID and -file can't be combined")
	case id != "":
		return []string{id}, nil
	case file == "":
		return nil, cli.Usagef(`-entryID is missing: the entry to delete ("lanyard issuer entry show" lists them)`)
	}
	f, err := v.dataFile(file)
	if err != nil {
		return nil, err
	}
	var list struct{ IDs []string }
	if err := f.decode(&list, "ids"); err != nil {
		return nil, err
	}
	if len(list.IDs) == 0 {
		return nil, fmt.Errorf(`%s holds no ids: want {"ids": ["…"]}`, file)
	}
	return list.IDs, nil
}

func printDeleted(out, errOut io.Writer, results []*entryv1.BatchDeleteEntryResponse_Result) {
	deleted := 0
	for _, r := range results {
		if r.Status.GetCode() == int32(codes.OK) {
			deleted++
			fmt.Fprintf(out, "Deleted entry with ID: %s\n", r.Id)
			continue
		}
		fmt.Fprintf(errOut, "Failed to delete entry with ID %s (code: %s, msg: %q)\n", r.Id, codes.Code(r.Status.GetCode()), r.Status.GetMessage())
	}
	if deleted > 0 {
		fmt.Fprint(out, "\n\n")
	}
	switch missed := len(results) - deleted; {
	case missed == 0:
		fmt.Fprintf(out, "Deleted %d entries successfully\n", deleted)
	case deleted == 0:
		fmt.Fprintf(out, "Failed to delete %d entries\n", missed)
	default:
		fmt.Fprintf(out, "Deleted %d entries successfully, but failed to delete %d entries\n", deleted, missed)
	}
}
