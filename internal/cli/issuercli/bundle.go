package issuercli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func bundleShow(env *cli.Env) *cobra.Command {
	v := newVerb(env, "show", "Show the trust bundle: what agents and peers verify SVIDs with").withOutput()
	v.Example = "  lanyard issuer bundle show > bundle.pem"
	var format bundleFormat
	format.add(v.Flags(), "format", "how -output pretty shows it")
	v.RunE = func(*cobra.Command, []string) error {
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			bundle, err := bundlev1.NewBundleClient(cc).GetBundle(ctx, &bundlev1.GetBundleRequest{})
			if err != nil {
				return err
			}
			return v.printBundle(bundle, &format)
		})
	}
	return v.Command
}

// printBundle prints one bundle and nothing about it, as a file to use.
func (v *verb) printBundle(bundle *types.Bundle, format *bundleFormat) error {
	shown, err := format.encode(bundle)
	if err != nil {
		return err
	}
	return v.out.Proto(v.env.Stdout, bundle, func(w io.Writer) { w.Write(shown) })
}

// bundleHeader stands before each bundle of several.
const bundleHeader = `****************************************
* %s
****************************************
`

func bundleList(env *cli.Env) *cobra.Command {
	v := newVerb(env, "list", "List the bundles of federated trust domains, all or one").withOutput()
	v.Example = "  lanyard issuer bundle list\n  lanyard issuer bundle list -id other.example -format spiffe > other.json"
	var id string
	var format bundleFormat
	v.Flags().StringVar(&id, "id", "", "the bundle of this `TRUST_DOMAIN` alone, without a header")
	format.add(v.Flags(), "format", "how -output pretty shows them")
	v.RunE = func(*cobra.Command, []string) error {
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			client := bundlev1.NewBundleClient(cc)
			if id != "" {
				bundle, err := client.GetFederatedBundle(ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: id})
				if err != nil {
					return fmt.Errorf("bundle of %s: %w", id, err)
				}
				return v.printBundle(bundle, &format)
			}
			bundles, err := fetchBundles(ctx, client)
			if err != nil {
				return err
			}
			var shown [][]byte
			for _, b := range bundles {
				text, err := format.encode(b)
				if err != nil {
					return fmt.Errorf("bundle of %s: %w", b.TrustDomain, err)
				}
				shown = append(shown, text)
			}
			return v.out.Proto(env.Stdout, &bundlev1.ListFederatedBundlesResponse{Bundles: bundles}, func(w io.Writer) {
				for i, b := range bundles {
					if i > 0 {
						fmt.Fprintln(w)
					}
					fmt.Fprintf(w, bundleHeader+"%s", b.TrustDomain, shown[i])
				}
			})
		})
	}
	return v.Command
}

// fetchBundles gives the bundles of all federated trust domains.
func fetchBundles(ctx context.Context, client bundlev1.BundleClient) ([]*types.Bundle, error) {
	var bundles []*types.Bundle
	for token := ""; ; {
		page, err := client.ListFederatedBundles(ctx, &bundlev1.ListFederatedBundlesRequest{PageSize: batchSize, PageToken: token})
		if err != nil {
			return nil, err
		}
		bundles = append(bundles, page.Bundles...)
		if token = page.NextPageToken; token == "" {
			return bundles, nil
		}
	}
}

func bundleCount(env *cli.Env) *cobra.Command {
	v := newVerb(env, "count", "Count bundles: the own one and those of federated trust domains").withOutput()
	v.RunE = func(*cobra.Command, []string) error {
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp, err := bundlev1.NewBundleClient(cc).CountBundles(ctx, &bundlev1.CountBundlesRequest{})
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, resp, func(w io.Writer) { fmt.Fprintln(w, cli.Count(int(resp.Count), "bundle", "bundles")) })
		})
	}
	return v.Command
}

func bundleSet(env *cli.Env) *cobra.Command {
	v := newVerb(env, "set", "Set the bundle of a federated trust domain").withOutput()
	v.Long = "Set the bundle of a federated trust domain: what SVIDs from there are verified with. One that is there is replaced."
	v.Example = "  lanyard issuer bundle set -id other.example -path other.pem\n  curl https://other.example/bundle | lanyard issuer bundle set -id other.example -format spiffe"
	var id, path string
	var format bundleFormat
	v.Flags().StringVar(&id, "id", "", "the `TRUST_DOMAIN`")
	v.Flags().StringVar(&path, "path", "", "`FILE` with the bundle (default standard input)")
	format.add(v.Flags(), "format", "what is in the file")
	v.RunE = func(*cobra.Command, []string) error {
		td, err := requiredTrustDomain("id", id)
		if err != nil {
			return err
		}
		bundle, err := format.read(v, path, td)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp, err := bundlev1.NewBundleClient(cc).BatchSetFederatedBundle(ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{bundle}})
			if err != nil {
				return fmt.Errorf("bundle of %s: %w", td, err)
			}
			return oneResult(v, resp, resp.Results, "bundle set.", "failed to set federated bundle")
		})
	}
	return v.Command
}

func bundleDelete(env *cli.Env) *cobra.Command {
	v := newVerb(env, "delete", "Delete the bundle of a federated trust domain").withOutput()
	v.Example = "  lanyard issuer bundle delete -id other.example -mode dissociate"
	var id string
	mode := cli.Choice{Value: "restrict", Accepts: []string{"restrict", "delete", "dissociate"}}
	v.Flags().StringVar(&id, "id", "", "the `TRUST_DOMAIN`")
	v.Flags().Var(&mode, "mode", "what becomes of entries that federate with it: restrict refuses to delete the bundle while there are any, delete deletes them too, dissociate has them go on without")
	v.RunE = func(*cobra.Command, []string) error {
		td, err := requiredTrustDomain("id", id)
		if err != nil {
			return err
		}
		how := map[string]bundlev1.BatchDeleteFederatedBundleRequest_Mode{
			"restrict": bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, "delete": bundlev1.BatchDeleteFederatedBundleRequest_DELETE,
			"dissociate": bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE,
		}[mode.Value]
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp, err := bundlev1.NewBundleClient(cc).BatchDeleteFederatedBundle(ctx, &bundlev1.BatchDeleteFederatedBundleRequest{TrustDomains: []string{td.Name()}, Mode: how})
			if err != nil {
				return fmt.Errorf("bundle of %s: %w", td, err)
			}
			return oneResult(v, resp, resp.Results, "bundle deleted.", fmt.Sprintf("failed to delete federated bundle %q", td.Name()))
		})
	}
	return v.Command
}

// oneResult prints the answer of a batch of one, and is an error where that one failed.
func oneResult[R interface{ GetStatus() *types.Status }](v *verb, resp proto.Message, results []R, done, failed string) error {
	if len(results) != 1 {
		return fmt.Errorf("%s: the issuer answered with %d results instead of 1", failed, len(results))
	}
	s := results[0].GetStatus()
	ok := s.GetCode() == int32(codes.OK)
	err := v.out.Proto(v.env.Stdout, resp, func(w io.Writer) {
		if ok {
			fmt.Fprintln(w, done)
		}
	})
	if err != nil || ok {
		return err
	}
	return v.partly(fmt.Errorf("%s: %s (%s)", failed, s.GetMessage(), codes.Code(s.GetCode())))
}
