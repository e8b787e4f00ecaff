package issuercli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func federationList(env *cli.Env) *cobra.Command {
	v := newVerb(env, "list", "List the trust domains that are federated with").withOutput()
	v.RunE = func(*cobra.Command, []string) error {
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			all, err := fetchRelationships(ctx, trustdomainv1.NewTrustDomainClient(cc))
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, &trustdomainv1.ListFederationRelationshipsResponse{FederationRelationships: all}, func(w io.Writer) {
				fmt.Fprintf(w, "Found %s\n", cli.Count(len(all), "federation relationship", "federation relationships"))
				for _, fr := range all {
					fmt.Fprintln(w)
					printRelationship(w, fr)
				}
			})
		})
	}
	return v.Command
}

func fetchRelationships(ctx context.Context, client trustdomainv1.TrustDomainClient) ([]*types.FederationRelationship, error) {
	var all []*types.FederationRelationship
	for token := ""; ; {
		page, err := client.ListFederationRelationships(ctx, &trustdomainv1.ListFederationRelationshipsRequest{PageSize: batchSize, PageToken: token})
		if err != nil {
			return nil, err
		}
		all = append(all, page.FederationRelationships...)
		if token = page.NextPageToken; token == "" {
			return all, nil
		}
	}
}

func federationShow(env *cli.Env) *cobra.Command {
	v := newVerb(env, "show", "Show how one trust domain is federated with").withOutput()
	v.Example = "  lanyard issuer federation show -trustDomain other.example"
	var name string
	v.Flags().StringVar(&name, "trustDomain", "", "the `TRUST_DOMAIN`")
	v.RunE = func(*cobra.Command, []string) error {
		td, err := requiredTrustDomain("trustDomain", name)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			fr, err := trustdomainv1.NewTrustDomainClient(cc).GetFederationRelationship(ctx, &trustdomainv1.GetFederationRelationshipRequest{TrustDomain: td.Name()})
			if err != nil {
				return fmt.Errorf("federation with %s: %w", td, err)
			}
			return v.out.Proto(env.Stdout, fr, func(w io.Writer) {
				fmt.Fprintf(w, "Found a federation relationship with trust domain %s:\n\n", name)
				printRelationship(w, fr)
			})
		})
	}
	return v.Command
}

func federationDelete(env *cli.Env) *cobra.Command {
	v := newVerb(env, "delete", "Fetch the bundle of a trust domain no more; the bundle that is there stays").withOutput()
	v.Example = "  lanyard issuer federation delete -id other.example"
	var id string
	v.Flags().StringVar(&id, "id", "", "the `TRUST_DOMAIN`")
	v.RunE = func(*cobra.Command, []string) error {
		td, err := requiredTrustDomain("id", id)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp, err := trustdomainv1.NewTrustDomainClient(cc).BatchDeleteFederationRelationship(ctx, &trustdomainv1.BatchDeleteFederationRelationshipRequest{TrustDomains: []string{td.Name()}})
			if err != nil {
				return fmt.Errorf("federation with %s: %w", td, err)
			}
			return oneResult(v, resp, resp.Results, "federation relationship deleted.", fmt.Sprintf("failed to delete federation relationship %q", td.Name()))
		})
	}
	return v.Command
}

func federationRefresh(env *cli.Env) *cobra.Command {
	v := newVerb(env, "refresh", "Fetch the bundle of a federated trust domain now").withOutput()
	v.Example = "  lanyard issuer federation refresh -id other.example"
	var id string
	v.Flags().StringVar(&id, "id", "", "the `TRUST_DOMAIN`")
	v.RunE = func(*cobra.Command, []string) error {
		td, err := requiredTrustDomain("id", id)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			_, err := trustdomainv1.NewTrustDomainClient(cc).RefreshBundle(ctx, &trustdomainv1.RefreshBundleRequest{TrustDomain: td.Name()})
			switch status.Code(err) {
			case codes.OK:
				return v.out.Proto(env.Stdout, &types.Status{Message: codes.OK.String()}, func(w io.Writer) { fmt.Fprintln(w, "Bundle refreshed") })
			case codes.NotFound:
				return cli.Hint(fmt.Errorf("there is no federation relationship with trust domain %q", td.Name()), "\"lanyard issuer federation list\" shows those there are")
			}
			return fmt.Errorf("failed to refresh bundle: %w", err)
		})
	}
	return v.Command
}
