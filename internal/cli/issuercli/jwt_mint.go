package issuercli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
)

func jwtMint(env *cli.Env) *cobra.Command {
	v := newVerb(env, "mint", "Mint one JWT-SVID, for what no agent can attest").withOutput()
	v.Example = "  lanyard issuer jwt mint -spiffeID spiffe://example.org/job -audience https://api.example.org -ttl 5m"
	var id, file string
	var ttl time.Duration
	var audience cli.Strings
	v.Flags().StringVar(&id, "spiffeID", "", "SPIFFE `ID` of the SVID")
	v.Flags().Var(&audience, "audience", "`NAME` of who is to accept it; may be given more than once")
	v.Flags().DurationVar(&ttl, "ttl", 0, "lifetime, rounded up to seconds (default: the issuer's)")
	v.Flags().StringVar(&file, "write", "", "write the token to `FILE` (0600) and do not print it")
	v.RunE = func(*cobra.Command, []string) error {
		subject, idErr := requiredID("spiffeID", id, "the SPIFFE ID of the SVID")
		var audienceErr error
		if len(audience) == 0 {
			audienceErr = cli.Usagef("-audience is missing: at least one name of who is to accept it")
		}
		life, lifeErr := wholeSeconds("ttl", ttl)
		if err := errors.Join(idErr, audienceErr, lifeErr); err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp, err := svidv1.NewSVIDClient(cc).MintJWTSVID(ctx, &svidv1.MintJWTSVIDRequest{Id: subject, Ttl: life, Audience: audience})
			switch {
			case err != nil:
				return err
			case resp.GetSvid().GetToken() == "":
				return errors.New("the issuer answered without a token")
			}
			warnCapped(env, "JWT-SVID", resp.Svid.ExpiresAt, ttl)
			if file != "" {
				return cli.WriteFiles(env.Stdout, cli.Artifact{What: "JWT-SVID written to %s\n", Path: file, Data: []byte(resp.Svid.Token), Mode: 0o600})
			}
			return v.out.Proto(env.Stdout, resp, func(w io.Writer) { fmt.Fprintln(w, resp.Svid.Token) })
		})
	}
	return v.Command
}

// warnCapped says so where an SVID lives shorter than was asked for.
func warnCapped(env *cli.Env, kind string, expires int64, asked time.Duration) {
	end := time.Unix(expires, 0)
	if asked > 0 && time.Until(end) < asked-time.Second {
		fmt.Fprintf(env.Stderr, "%s lifetime was capped shorter than specified ttl; expires %q\n", kind, end.UTC().Format(time.RFC3339))
	}
}

// wholeSeconds gives a lifetime as the API has it, rounded up.
func wholeSeconds(flag string, d time.Duration) (int32, error) {
	if d < 0 {
		return 0, cli.Usagef("-%s %v: want none, or more than 0", flag, d)
	}
	return seconds(flag, int((d+time.Second-1)/time.Second))
}
