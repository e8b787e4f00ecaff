package issuercli

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// mintedWIT is the answer of wit mint; the names are SPIRE's.
type mintedWIT struct {
	PrivateKey string  `json:"private_key"` // a JWK
	SVID       witJSON `json:"svid"`
}

// witJSON is a WIT-SVID as SPIRE prints it here: by Go's rules, not by those of protobuf.
type witJSON struct {
	Token     string  `json:"token,omitempty"`
	ID        *idJSON `json:"id,omitempty"`
	ExpiresAt int64   `json:"expires_at,omitempty"`
	IssuedAt  int64   `json:"issued_at,omitempty"`
	Hint      string  `json:"hint,omitempty"`
}

type idJSON struct {
	TrustDomain string `json:"trust_domain,omitempty"`
	Path        string `json:"path,omitempty"`
}

func witMint(env *cli.Env) *cobra.Command {
	v := newVerb(env, "mint", "Mint one WIT-SVID: a token that is bound to a key").withOutput()
	v.Example = "  lanyard issuer wit mint -spiffeID spiffe://example.org/job -write DIR"
	var id, dir string
	var ttl time.Duration
	keyType, algorithm := cli.Choice{Value: "ec-p256", Accepts: witKeyTypes()}, cli.Choice{Value: "ES256", Accepts: witAlgorithms()}
	v.Flags().StringVar(&id, "spiffeID", "", "SPIFFE `ID` of the SVID")
	v.Flags().Var(&keyType, "keyType", "of the key that is made for it")
	v.Flags().Var(&algorithm, "signingAlgorithm", "that the key is used with: ES256 with ec-p256, ES384 with ec-p384, the others with RSA")
	v.Flags().DurationVar(&ttl, "ttl", 0, "lifetime, rounded up to seconds (default: the issuer's)")
	v.Flags().StringVar(&dir, "write", "", "write token and key (both 0600) into `DIR` and print no secret")
	v.RunE = func(*cobra.Command, []string) error {
		subject, idErr := requiredID("spiffeID", id, "the SPIFFE ID of the SVID")
		life, lifeErr := wholeSeconds("ttl", ttl)
		if err := errors.Join(idErr, lifeErr, fits(keyType.Value, algorithm.Value)); err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			key, err := newKey(keyType.Value)
			if err != nil {
				return err
			}
			m, err := mintWIT(ctx, svidv1.NewSVIDClient(cc), key, &svidv1.MintWITSVIDRequest{Id: subject, Ttl: life, SigningAlgorithm: algorithm.Value})
			if err != nil {
				return err
			}
			warnCapped(env, "WIT-SVID", m.SVID.ExpiresAt, ttl)
			if dir != "" {
				return cli.WriteFiles(env.Stdout,
					cli.Artifact{What: "WIT-SVID written to %s\n", Path: filepath.Join(dir, "token"), Data: []byte(m.SVID.Token), Mode: 0o600},
					cli.Artifact{What: "Private key written to %s\n", Path: filepath.Join(dir, "key"), Data: []byte(m.PrivateKey), Mode: 0o600})
			}
			return v.out.Struct(env.Stdout, m, func(w io.Writer) { fmt.Fprintf(w, "%s\n%s\n", m.SVID.Token, m.PrivateKey) })
		})
	}
	return v.Command
}

func mintWIT(ctx context.Context, client svidv1.SVIDClient, key crypto.Signer, req *svidv1.MintWITSVIDRequest) (*mintedWIT, error) {
	var err error
	if req.PublicKey, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return nil, err
	}
	resp, err := client.MintWITSVID(ctx, req)
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil, cli.Hint(err, "this issuer mints no WIT-SVIDs; a spire-server does with the feature flag wit-svid")
	case err != nil:
		return nil, err
	case resp.GetSvid().GetToken() == "":
		return nil, errors.New("the issuer answered without a token")
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key})
	return &mintedWIT{PrivateKey: string(jwk), SVID: witFrom(resp.Svid)}, err
}

func witFrom(s *types.WITSVID) witJSON {
	return witJSON{Token: s.Token, ID: &idJSON{s.GetId().GetTrustDomain(), s.GetId().GetPath()}, ExpiresAt: s.ExpiresAt, IssuedAt: s.IssuedAt, Hint: s.Hint}
}

func witKeyTypes() []string { return []string{"ec-p256", "ec-p384", "rsa-2048", "rsa-4096"} }

func witAlgorithms() []string {
	return []string{"ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
}

// fits says whether keys of the type can be used with the algorithm.
func fits(keyType, algorithm string) error {
	want := []string{"rsa-2048", "rsa-4096"}
	switch algorithm {
	case "ES256":
		want = []string{"ec-p256"}
	case "ES384":
		want = []string{"ec-p384"}
	}
	if !slices.Contains(want, keyType) {
		return cli.Usagef("-signingAlgorithm %s goes with -keyType %s, not with %s", algorithm, strings.Join(want, " or "), keyType)
	}
	return nil
}

func newKey(keyType string) (crypto.Signer, error) {
	switch keyType {
	case "ec-p384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "rsa-2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "rsa-4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}
