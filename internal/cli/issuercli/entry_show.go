package issuercli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// entryFilter are the flags that choose entries.
type entryFilter struct {
	parentID, spiffeID, hint string
	selectors, federatesWith cli.Strings
	selectorsOn, federatesOn cli.Choice
	downstream               bool
}

func (f *entryFilter) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.spiffeID, "spiffeID", "", "only entries with this SPIFFE `ID`")
	fs.StringVar(&f.parentID, "parentID", "", "only entries with this parent `ID`")
	fs.Var(&f.selectors, "selector", "only entries by their `TYPE:VALUE` selectors, see -matchSelectorsOn; may be given more than once")
	matchFlag(fs, &f.selectorsOn, "matchSelectorsOn", "selector")
	fs.Var(&f.federatesWith, "federatesWith", "only entries by the `TRUST_DOMAIN`s they federate with, see -matchFederatesWithOn; may be given more than once")
	matchFlag(fs, &f.federatesOn, "matchFederatesWithOn", "federatesWith")
	fs.StringVar(&f.hint, "hint", "", "only entries with this hint `TEXT`")
	fs.BoolVar(&f.downstream, "downstream", false, "only entries for downstream issuers (=false: only others; not given: both)")
}

// proto gives the filter as the API has it.
func (f *entryFilter) proto(fs *pflag.FlagSet) (*entryv1.ListEntriesRequest_Filter, error) {
	filter := &entryv1.ListEntriesRequest_Filter{}
	var err error
	if f.spiffeID != "" {
		if filter.BySpiffeId, err = entryID("spiffeID", f.spiffeID, ""); err != nil {
			return nil, err
		}
	}
	if filter.ByParentId, err = optionalID("parentID", f.parentID); err != nil {
		return nil, err
	}
	if filter.BySelectors, err = selectorMatch(f.selectors, f.selectorsOn); err != nil {
		return nil, err
	}
	if filter.ByFederatesWith, err = federatesMatch(f.federatesWith, f.federatesOn); err != nil {
		return nil, err
	}
	if f.hint != "" {
		filter.ByHint = wrapperspb.String(f.hint)
	}
	if fs.Changed("downstream") {
		filter.ByDownstream = wrapperspb.Bool(f.downstream)
	}
	return filter, nil
}

func entryShow(env *cli.Env) *cobra.Command {
	v := newVerb(env, "show", "Show entries, all or some").withOutput()
	var f entryFilter
	var entryID string
	v.Flags().StringVar(&entryID, "entryID", "", "the entry with this `ID`; conflicts with the flags below")
	f.add(v.Flags())
	v.RunE = func(*cobra.Command, []string) error {
		filter, err := f.proto(v.Flags())
		if err != nil {
			return err
		}
		if entryID != "" && (f.spiffeID != "" || f.parentID != "" || len(f.selectors) > 0) {
			return cli.Usagef("-entryID can't be combined with -spiffeID, -parentID or -selector: it names one entry already")
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			entries, err := fetchEntries(ctx, entryv1.NewEntryClient(cc), entryID, filter)
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, &entryv1.ListEntriesResponse{Entries: entries}, func(w io.Writer) {
				fmt.Fprintf(w, "Found %s\n", cli.Count(len(entries), "entry", "entries"))
				for _, e := range entries {
					printEntry(w, e)
				}
			})
		})
	}
	return v.Command
}

func fetchEntries(ctx context.Context, client entryv1.EntryClient, id string, filter *entryv1.ListEntriesRequest_Filter) ([]*types.Entry, error) {
	if id != "" {
		e, err := client.GetEntry(ctx, &entryv1.GetEntryRequest{Id: id})
		if err != nil {
			return nil, fmt.Errorf("entry %s: %w", id, err)
		}
		return []*types.Entry{e}, nil
	}
	var entries []*types.Entry
	for token := ""; ; {
		page, err := client.ListEntries(ctx, &entryv1.ListEntriesRequest{PageSize: batchSize, PageToken: token, Filter: filter})
		if err != nil {
			return nil, err
		}
		entries = append(entries, page.Entries...)
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	for _, e := range entries {
		slices.SortFunc(e.Selectors, func(a, b *types.Selector) int {
			return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Value, b.Value))
		})
	}
	slices.SortStableFunc(entries, func(a, b *types.Entry) int {
		return cmp.Or(cmp.Compare(idString(a.SpiffeId), idString(b.SpiffeId)), cmp.Compare(idString(a.ParentId), idString(b.ParentId)), cmp.Compare(a.Id, b.Id))
	})
	return entries, nil
}

func entryCount(env *cli.Env) *cobra.Command {
	v := newVerb(env, "count", "Count entries, all or some").withOutput()
	var f entryFilter
	f.add(v.Flags())
	v.RunE = func(*cobra.Command, []string) error {
		filter, err := f.proto(v.Flags())
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp, err := entryv1.NewEntryClient(cc).CountEntries(ctx, &entryv1.CountEntriesRequest{Filter: &entryv1.CountEntriesRequest_Filter{
				BySpiffeId: filter.BySpiffeId, ByParentId: filter.ByParentId, BySelectors: filter.BySelectors,
				ByFederatesWith: filter.ByFederatesWith, ByHint: filter.ByHint, ByDownstream: filter.ByDownstream,
			}})
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, resp, func(w io.Writer) {
				fmt.Fprintln(w, cli.Count(int(resp.Count), "registration entry", "registration entries"))
			})
		})
	}
	return v.Command
}
