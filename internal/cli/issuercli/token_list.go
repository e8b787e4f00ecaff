package issuercli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func tokenList(env *cli.Env) *cobra.Command {
	v := newVerb(env, "list", "List the tokens that can still be used, without their secrets").withOutput()
	v.RunE = func(*cobra.Command, []string) error {
		return v.ownCall(func(ctx context.Context, c operationsv1.OperationsClient) error {
			resp, err := c.ListTokens(ctx, &operationsv1.ListTokensRequest{})
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, resp, func(w io.Writer) { printTokens(w, resp.Tokens) })
		})
	}
	return cli.ExitLikeLanyard(v.Command)
}

func printTokens(w io.Writer, tokens []*operationsv1.ListTokensResponse_Token) {
	if len(tokens) == 0 {
		fmt.Fprintln(w, "No tokens")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tMETHOD\tEXPIRES\tUSED\tBOUNDS")
	for _, k := range tokens {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d of %d\t%s\n", k.Id, k.Method, stamp(k.ExpiresAt), k.Uses, max(k.MaxUses, 1), bounds(k))
	}
	t.Flush()
}

func bounds(k *operationsv1.ListTokensResponse_Token) string {
	var all []string
	add := func(label string, values ...string) {
		if s := strings.Join(values, ","); s != "" {
			all = append(all, label+" "+s)
		}
	}
	add("from", k.AllowedCidrs...)
	add("group", k.Group)
	add("has", selectorStrings(k.Selectors)...)
	add("as", idString(k.AgentId))
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, "; ")
}

func selectorStrings(sel []*types.Selector) []string {
	var all []string
	for _, s := range sel {
		all = append(all, s.Type+":"+s.Value)
	}
	return all
}

func tokenRevoke(env *cli.Env) *cobra.Command {
	v := newVerb(env, "revoke", "End a token; agents that joined with it stay").withOutput()
	var id string
	v.Flags().StringVar(&id, "id", "", "`ID` of the token, not its secret")
	v.RunE = func(*cobra.Command, []string) error {
		if id == "" {
			return cli.Usagef(`-id is missing: the token's ID ("lanyard issuer token list" shows it)`)
		}
		return v.ownCall(func(ctx context.Context, c operationsv1.OperationsClient) error {
			if _, err := c.RevokeToken(ctx, &operationsv1.RevokeTokenRequest{Id: id}); err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, &types.Status{Message: codes.OK.String()}, func(w io.Writer) { fmt.Fprintln(w, "Token revoked") })
		})
	}
	return cli.ExitLikeLanyard(v.Command)
}

// stamp writes Unix seconds.
func stamp(unix int64) string {
	if unix <= 0 {
		return "never"
	}
	return time.Unix(unix, 0).UTC().Format(time.RFC3339)
}
