package issuercli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// relationshipFlags are the flags that say what is in a federation relationship.
type relationshipFlags struct {
	td, url, endpointID, path, data string
	profile                         cli.Choice
	format                          bundleFormat
}

func (f *relationshipFlags) add(v *verb) {
	fs := v.Flags()
	f.profile = cli.Choice{Accepts: profiles}
	fs.StringVar(&f.td, "trustDomain", "", "the `TRUST_DOMAIN` to federate with")
	fs.StringVar(&f.url, "bundleEndpointURL", "", "`URL` its bundle is fetched from, https://…")
	fs.Var(&f.profile, "bundleEndpointProfile", "how that endpoint is authenticated: by a public certificate or by its SPIFFE ID")
	fs.StringVar(&f.endpointID, "endpointSpiffeID", "", "SPIFFE `ID` of the endpoint, with https_spiffe")
	fs.StringVar(&f.path, "trustDomainBundlePath", "", "`FILE` with its bundle, which https_spiffe needs for the first fetch")
	f.format.add(fs, "trustDomainBundleFormat", "what is in that file")
	fs.StringVar(&f.data, "data", "", "JSON `FILE` with relationships, - for standard input; conflicts with all flags above")
}

// relationships gives what -data or the flags describe.
func (f *relationshipFlags) relationships(v *verb) ([]*types.FederationRelationship, error) {
	if f.data != "" {
		if err := onlyData(v.Flags()); err != nil {
			return nil, err
		}
		file, err := v.dataFile(f.data)
		if err != nil {
			return nil, err
		}
		return file.relationships()
	}
	td, tdErr := requiredTrustDomain("trustDomain", f.td)
	fr := &types.FederationRelationship{TrustDomain: td.Name(), BundleEndpointUrl: f.url}
	urlErr := endpointURL("-bundleEndpointURL", f.url)
	profileErr := setProfile(fr, f.profile.Value, f.endpointID, "-bundleEndpointProfile", "-endpointSpiffeID")
	if err := errors.Join(tdErr, urlErr, profileErr); err != nil {
		return nil, cli.Usagef("%v", err)
	}
	if f.path != "" {
		bundle, err := f.format.read(v, f.path, td)
		if err != nil {
			return nil, err
		}
		fr.TrustDomainBundle = bundle
	}
	return []*types.FederationRelationship{fr}, nil
}

// relationshipResult is what the API gives for each relationship that is created or updated.
type relationshipResult interface {
	GetStatus() *types.Status
	GetFederationRelationship() *types.FederationRelationship
}

// relationshipsVerb makes federation create or update.
func relationshipsVerb[R relationshipResult](env *cli.Env, name, short, example string, do func(context.Context, trustdomainv1.TrustDomainClient, []*types.FederationRelationship) (proto.Message, []R, error)) *cobra.Command {
	v := newVerb(env, name, short).withOutput()
	v.Example = example
	var f relationshipFlags
	f.add(v)
	v.RunE = func(*cobra.Command, []string) error {
		all, err := f.relationships(v)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp, results, err := do(ctx, trustdomainv1.NewTrustDomainClient(cc), all)
			if err != nil {
				return err
			}
			if err := v.out.Proto(env.Stdout, resp, func(w io.Writer) { printRelationships(w, env.Stderr, name, results, all) }); err != nil {
				return err
			}
			return v.partly(failed(name, "federation relationships", results))
		})
	}
	return v.Command
}

func federationCreate(env *cli.Env) *cobra.Command {
	example := `  lanyard issuer federation create -trustDomain other.example -bundleEndpointURL https://other.example/bundle -bundleEndpointProfile https_web
  lanyard issuer federation create -trustDomain other.example -bundleEndpointURL https://issuer.other.example:8443 \
      -bundleEndpointProfile https_spiffe -endpointSpiffeID spiffe://other.example/spire/server -trustDomainBundlePath other.pem`
	return relationshipsVerb(env, "create", "Federate with trust domains", example,
		func(ctx context.Context, c trustdomainv1.TrustDomainClient, all []*types.FederationRelationship) (proto.Message, []*trustdomainv1.BatchCreateFederationRelationshipResponse_Result, error) {
			resp, err := c.BatchCreateFederationRelationship(ctx, &trustdomainv1.BatchCreateFederationRelationshipRequest{FederationRelationships: all})
			return resp, resp.GetResults(), err
		})
}

func federationUpdate(env *cli.Env) *cobra.Command {
	example := "  lanyard issuer federation update -trustDomain other.example -bundleEndpointURL https://new.other.example/bundle -bundleEndpointProfile https_web"
	return relationshipsVerb(env, "update", "Replace what is known about federated trust domains", example,
		func(ctx context.Context, c trustdomainv1.TrustDomainClient, all []*types.FederationRelationship) (proto.Message, []*trustdomainv1.BatchUpdateFederationRelationshipResponse_Result, error) {
			resp, err := c.BatchUpdateFederationRelationship(ctx, &trustdomainv1.BatchUpdateFederationRelationshipRequest{FederationRelationships: all})
			return resp, resp.GetResults(), err
		})
}

// printRelationships prints those that were changed on out, and on errOut those that weren't, with the reason: the answer
// has nothing of these but its place among those that were sent.
func printRelationships[R relationshipResult](out, errOut io.Writer, verb string, results []R, sent []*types.FederationRelationship) {
	for _, r := range results {
		if r.GetStatus().GetCode() == int32(codes.OK) {
			fmt.Fprintln(out)
			printRelationship(out, r.GetFederationRelationship())
		}
	}
	for i, r := range results {
		if s := r.GetStatus(); s.GetCode() != int32(codes.OK) {
			fmt.Fprintln(out)
			fmt.Fprintf(errOut, "Failed to %s the following federation relationship (code: %s, msg: %q):\n", verb, codes.Code(s.GetCode()), s.GetMessage())
			if i < len(sent) {
				printRelationship(errOut, sent[i])
			}
		}
	}
}

func printRelationship(w io.Writer, fr *types.FederationRelationship) {
	fmt.Fprintf(w, "Trust domain              : %s\n", fr.GetTrustDomain())
	fmt.Fprintf(w, "Bundle endpoint URL       : %s\n", fr.GetBundleEndpointUrl())
	switch p := fr.GetBundleEndpointProfile().(type) {
	case *types.FederationRelationship_HttpsWeb:
		fmt.Fprintf(w, "Bundle endpoint profile   : https_web\n")
	case *types.FederationRelationship_HttpsSpiffe:
		fmt.Fprintf(w, "Bundle endpoint profile   : https_spiffe\n")
		fmt.Fprintf(w, "Endpoint SPIFFE ID        : %s\n", p.HttpsSpiffe.GetEndpointSpiffeId())
	}
}
