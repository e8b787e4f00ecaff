package issuercli

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func bundleShow(env *cli.Env) *cobra.Command {
	v := newVerb(env, "show", "Show the trust bundle: what agents and peers verify SVIDs with").withOutput()
	v.Example = "  lanyard issuer bundle show > bundle.pem"
	format := "pem"
	v.Flags().StringVar(&format, "format", format, "`pem|spiffe` (SPIFFE's JWKS); counts for -output pretty only")
	v.RunE = func(*cobra.Command, []string) error {
		format = strings.ToLower(format)
		if format != "pem" && format != "spiffe" {
			return cli.Usagef("-format %q is unknown; accepted: pem, spiffe", format)
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			bundle, err := bundlev1.NewBundleClient(cc).GetBundle(ctx, &bundlev1.GetBundleRequest{})
			if err != nil {
				return err
			}
			shown, err := formatBundle(bundle, format)
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, bundle, func(w io.Writer) { w.Write(shown) })
		})
	}
	return v.Command
}

func formatBundle(bundle *types.Bundle, format string) ([]byte, error) {
	authorities, err := certificates(bundle)
	if err != nil {
		return nil, err
	}
	if format == "pem" {
		var b bytes.Buffer
		for _, c := range authorities {
			b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
		}
		return b.Bytes(), nil
	}
	td, err := spiffeid.TrustDomainFromString(bundle.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("trust domain %q of the bundle: %w", bundle.TrustDomain, err)
	}
	sb := spiffebundle.FromX509Authorities(td, authorities)
	for _, k := range bundle.JwtAuthorities {
		public, err := x509.ParsePKIXPublicKey(k.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("JWT authority %q: %w", k.KeyId, err)
		}
		if err := sb.AddJWTAuthority(k.KeyId, public); err != nil {
			return nil, err
		}
	}
	if bundle.RefreshHint > 0 {
		sb.SetRefreshHint(time.Duration(bundle.RefreshHint) * time.Second)
	}
	if bundle.SequenceNumber > 0 {
		sb.SetSequenceNumber(bundle.SequenceNumber)
	}
	doc, err := sb.Marshal()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, doc, "", "    "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func certificates(bundle *types.Bundle) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for i, a := range bundle.X509Authorities {
		certs, err := x509.ParseCertificates(a.Asn1)
		if err != nil {
			return nil, fmt.Errorf("X.509 authority %d of the bundle: %w", i+1, err)
		}
		all = append(all, certs...)
	}
	return all, nil
}
