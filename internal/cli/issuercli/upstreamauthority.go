package issuercli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
)

func upstreamTaint(env *cli.Env) *cobra.Command {
	return upstreamVerb(env, "taint", "Tainted", "Distrust an upstream authority: the issuer gets itself a CA certificate from another one", func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, string, error) {
		r, err := c.TaintX509UpstreamAuthority(ctx, &localauthorityv1.TaintX509UpstreamAuthorityRequest{SubjectKeyId: id})
		return r, r.GetUpstreamAuthoritySubjectKeyId(), err
	})
}

func upstreamRevoke(env *cli.Env) *cobra.Command {
	return upstreamVerb(env, "revoke", "Revoked", "Take a tainted upstream authority out of the bundle", func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, string, error) {
		r, err := c.RevokeX509UpstreamAuthority(ctx, &localauthorityv1.RevokeX509UpstreamAuthorityRequest{SubjectKeyId: id})
		return r, r.GetUpstreamAuthoritySubjectKeyId(), err
	})
}

func upstreamVerb(env *cli.Env, verb, done, short string, do func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, string, error)) *cobra.Command {
	v := newVerb(env, verb, short).withOutput()
	v.Example = "  lanyard issuer upstreamauthority " + verb + " -subjectKeyID 77bc26ba40812528b123aa79729d8a0d6210e3f9"
	var id string
	v.Flags().StringVar(&id, "subjectKeyID", "", "Subject Key Identifier of its CA certificate, in `HEX`")
	v.RunE = func(*cobra.Command, []string) error {
		if id == "" {
			return cli.Usagef(`-subjectKeyID is missing: the Subject Key Identifier of the upstream CA's certificate ("lanyard issuer localauthority x509 show" tells it)`)
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp, skid, err := do(ctx, localauthorityv1.NewLocalAuthorityClient(cc), id)
			if err != nil {
				return fmt.Errorf("could not %s X.509 upstream authority: %w", verb, err)
			}
			return v.out.Proto(env.Stdout, resp, func(w io.Writer) {
				fmt.Fprintf(w, "%s X.509 upstream authority:\n  Subject Key ID: %s\n", done, skid)
			})
		})
	}
	return v.Command
}
