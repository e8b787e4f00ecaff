package agentcli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// maxToken bounds what is read from standard input.
const maxToken = 1 << 20

func fetchJWT(env *cli.Env) *cobra.Command {
	v := newVerb(env, "jwt", "Fetch this process's JWT-SVIDs for an audience, and the keys to verify such with")
	v.Example = "  lanyard agent api fetch jwt -audience reports"
	timeout, audience, id := defaultTimeout, "", ""
	v.Flags().StringVar(&audience, "audience", "", "`NAME` of who is to take the tokens; several by commas, each of whom could use them at the others")
	v.Flags().StringVar(&id, "spiffeID", "", "the `ID` to fetch for; all if not set")
	v.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait for each answer; 0 is for ever")
	var out cli.Output
	out.AddFlag(v.Flags())
	cli.Alias(v.Flags(), "output", "format")
	v.RunE = spireErrors(env, "", func() error {
		if audience == "" {
			return errors.New("audience must be specified")
		}
		cc, err := v.connect()
		if err != nil {
			return err
		}
		defer cc.Close()
		bundles, err := fetchJWTBundles(v.Context(), cc, timeout)
		if err != nil {
			return explain(err)
		}
		ctx, cancel := callContext(v.Context(), timeout)
		defer cancel()
		svids, err := workload.NewSpiffeWorkloadAPIClient(cc).FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: strings.Split(audience, ","), SpiffeId: id})
		if err != nil {
			return explain(err)
		}
		if !out.JSON() {
			return out.Proto(env.Stdout, svids, func(w io.Writer) { printJWTs(w, svids, bundles) })
		}
		return printBothJWT(env.Stdout, &out, svids, bundles)
	})
	return v.Command
}

// callContext is that of one call of the Workload API.
func callContext(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
	if timeout > 0 {
		return context.WithTimeout(ctx, timeout)
	}
	return context.WithCancel(ctx)
}

// fetchJWTBundles takes the first answer of a FetchJWTBundles stream.
func fetchJWTBundles(ctx context.Context, cc *grpc.ClientConn, timeout time.Duration) (*workload.JWTBundlesResponse, error) {
	ctx, cancel := callContext(ctx, timeout)
	defer cancel()
	stream, err := workload.NewSpiffeWorkloadAPIClient(cc).FetchJWTBundles(ctx, &workload.JWTBundlesRequest{})
	if err != nil {
		return nil, err
	}
	return stream.Recv()
}

// printJWTs writes SPIRE's text.
func printJWTs(w io.Writer, svids *workload.JWTSVIDResponse, bundles *workload.JWTBundlesResponse) {
	for _, s := range svids.Svids {
		fmt.Fprintf(w, "token(%s):\n\t%s\n", s.SpiffeId, s.Svid)
		if s.Hint != "" {
			fmt.Fprintf(w, "hint(%s):\n\t%s\n", s.SpiffeId, s.Hint)
		}
	}
	for _, td := range slices.Sorted(maps.Keys(bundles.Bundles)) {
		fmt.Fprintf(w, "bundle(%s):\n\t%s\n", td, bundles.Bundles[td])
	}
}

// printBothJWT writes SPIRE's JSON: a list of the two answers.
func printBothJWT(w io.Writer, out *cli.Output, svids *workload.JWTSVIDResponse, bundles *workload.JWTBundlesResponse) error {
	var one, two bytes.Buffer
	if err := errors.Join(out.Proto(&one, svids, nil), out.Proto(&two, bundles, nil)); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode([]json.RawMessage{one.Bytes(), two.Bytes()})
}

func validateJWT(env *cli.Env) *cobra.Command {
	v := newVerb(env, "jwt", "Have the agent validate a JWT-SVID for an audience: exit 0 if it is valid, 1 if not")
	v.Example = "  lanyard agent api validate jwt -audience reports -svid - <token"
	timeout, audience, token := defaultTimeout, "", ""
	v.Flags().StringVar(&audience, "audience", "", "`NAME` that the token must be for")
	v.Flags().StringVar(&token, "svid", "", "the `TOKEN`, - for standard input: others on this machine see it in the list of processes")
	v.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait for the answer; 0 is for ever")
	var out cli.Output
	out.AddFlag(v.Flags())
	v.RunE = spireErrors(env, "", func() error {
		switch {
		case audience == "":
			return errors.New("audience must be specified")
		case token == "":
			return errors.New("svid must be specified")
		case token == "-":
			text, err := io.ReadAll(io.LimitReader(env.Stdin, maxToken))
			if err != nil {
				return fmt.Errorf("read the token: %w", err)
			}
			token = strings.TrimSpace(string(text))
		}
		cc, err := v.connect()
		if err != nil {
			return err
		}
		defer cc.Close()
		ctx, cancel := callContext(v.Context(), timeout)
		defer cancel()
		resp, err := workload.NewSpiffeWorkloadAPIClient(cc).ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{Audience: audience, Svid: token})
		if status.Code(err) == codes.InvalidArgument {
			return fmt.Errorf("SVID is not valid: %s", status.Convert(err).Message())
		}
		if err != nil {
			return fmt.Errorf("unable to validate JWT SVID: %w", cli.RPCError(err))
		}
		claims, err := json.Marshal(resp.GetClaims().AsMap())
		if err != nil {
			return err
		}
		return out.Proto(env.Stdout, resp, func(w io.Writer) {
			fmt.Fprintf(w, "SVID is valid.\nSPIFFE ID : %s\nClaims    : %s\n", resp.SpiffeId, claims)
		})
	})
	return v.Command
}
