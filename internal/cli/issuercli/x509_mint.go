package issuercli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
)

// minted is the answer of x509 mint; the JSON names and their base64 are SPIRE's.
type minted struct {
	X509SVID   [][]byte `json:"x509_svid"`
	PrivateKey []byte   `json:"private_key"`
	RootCAs    [][]byte `json:"root_cas"`
	expires    time.Time
}

func x509Mint(env *cli.Env) *cobra.Command {
	v := newVerb(env, "mint", "Mint one X.509-SVID, for what no agent can attest").withOutput()
	var id, dir string
	var ttl time.Duration
	var dns cli.Strings
	v.Flags().StringVar(&id, "spiffeID", "", "SPIFFE `ID` of the SVID")
	v.Flags().DurationVar(&ttl, "ttl", 0, "lifetime, rounded up to seconds (default: the issuer's)")
	v.Flags().Var(&dns, "dns", "DNS `NAME` put into it; may be given more than once")
	v.Flags().StringVar(&dir, "write", "", "write svid.pem, key.pem (0600) and bundle.pem into `DIR` and print no secret")
	v.RunE = func(*cobra.Command, []string) error {
		if id == "" {
			return cli.Usagef("-spiffeID is missing: the SPIFFE ID of the SVID")
		}
		parsed, err := spiffeid.FromString(id)
		if err != nil {
			return cli.Usagef("-spiffeID %q is no SPIFFE ID: %v", id, err)
		}
		life, err := seconds("ttl", int((ttl+time.Second-1)/time.Second))
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			m, err := mint(ctx, cc, parsed, dns, life)
			if err != nil {
				return err
			}
			if time.Until(m.expires) < ttl-time.Second {
				fmt.Fprintf(env.Stderr, "X509-SVID lifetime was capped shorter than specified ttl; expires %q\n", m.expires.UTC().Format(time.RFC3339))
			}
			if dir != "" {
				return m.write(env.Stdout, dir)
			}
			return v.out.Struct(env.Stdout, m, m.print)
		})
	}
	return v.Command
}

// mint makes a key and has the issuer sign it.
func mint(ctx context.Context, cc *grpc.ClientConn, id spiffeid.ID, dns []string, seconds int32) (*minted, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}, DNSNames: dns}, key)
	if err != nil {
		return nil, fmt.Errorf("request for %s: %w", id, err)
	}
	resp, err := svidv1.NewSVIDClient(cc).MintX509SVID(ctx, &svidv1.MintX509SVIDRequest{Csr: csr, Ttl: seconds})
	if err != nil {
		return nil, err
	}
	bundle, err := bundlev1.NewBundleClient(cc).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return nil, err
	}
	if len(resp.GetSvid().GetCertChain()) == 0 || len(bundle.X509Authorities) == 0 {
		return nil, errors.New("the issuer answered without a certificate")
	}
	m := &minted{X509SVID: resp.Svid.CertChain, expires: time.Unix(resp.Svid.ExpiresAt, 0)}
	for _, a := range bundle.X509Authorities {
		m.RootCAs = append(m.RootCAs, a.Asn1)
	}
	m.PrivateKey, err = x509.MarshalPKCS8PrivateKey(key)
	return m, err
}

func (m *minted) print(w io.Writer) {
	fmt.Fprintf(w, "X509-SVID:\n%s\n", cli.PEM("CERTIFICATE", m.X509SVID...))
	fmt.Fprintf(w, "Private key:\n%s\n", cli.PEM("PRIVATE KEY", m.PrivateKey))
	fmt.Fprintf(w, "Root CAs:\n%s\n", cli.PEM("CERTIFICATE", m.RootCAs...))
}

func (m *minted) write(out io.Writer, dir string) error {
	return cli.WriteFiles(out,
		cli.Artifact{What: "X509-SVID written to %s\n", Path: filepath.Join(dir, "svid.pem"), Data: cli.PEM("CERTIFICATE", m.X509SVID...), Mode: 0o644},
		cli.Artifact{What: "Private key written to %s\n", Path: filepath.Join(dir, "key.pem"), Data: cli.PEM("PRIVATE KEY", m.PrivateKey), Mode: 0o600},
		cli.Artifact{What: "Root CAs written to %s\n", Path: filepath.Join(dir, "bundle.pem"), Data: cli.PEM("CERTIFICATE", m.RootCAs...), Mode: 0o644})
}
