package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// NewJWTSVID has a JWT-SVID signed for an entry, or for an instance of an ID
// template, "ID~/path" (spire.api.server.svid.v1, NewJWTSVID). It makes one call;
// the error has the issuer's status code.
func (c *Client) NewJWTSVID(ctx context.Context, entryID string, audience []string) (jwtsvid.Token, error) {
	var resp *svidv1.NewJWTSVIDResponse
	err := c.agentCall(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = svidv1.NewSVIDClient(conn).NewJWTSVID(ctx, &svidv1.NewJWTSVIDRequest{EntryId: entryID, Audience: audience})
		return err
	})
	if err != nil {
		return jwtsvid.Token{}, err
	}
	token, err := jwtsvid.Inspect(resp.GetSvid().GetToken())
	if err != nil {
		return jwtsvid.Token{}, fmt.Errorf("the issuer's answer: %w", err)
	}
	return token, nil
}

// withTemplates tells the issuer that this agent can fill ID templates
// (docs/decisions/0009). SPIRE's takes no notice.
func withTemplates(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "lanyard-templates", "1")
}

// readJWT reads the JWT part of a bundle. Keys that are tainted or have expired
// verify nothing any more, and are left out; so are those that can't be read: the
// others still hold.
func readJWT(td spiffeid.TrustDomain, p *types.Bundle, log *slog.Logger) *jwtsvid.Bundle {
	var keys []jwtsvid.Key
	now := time.Now()
	for _, authority := range p.GetJwtAuthorities() {
		key, err := parseJWTKey(authority)
		switch {
		case err != nil:
			log.Error("JWT key left out", "trust_domain", td.Name(), "key_id", authority.GetKeyId(), "reason", err)
		case authority.GetTainted(), !key.ExpiresAt.IsZero() && !now.Before(key.ExpiresAt):
		default:
			keys = append(keys, key)
		}
	}
	return jwtsvid.NewBundle(td, keys...)
}

// parseJWTKey reads one key of a bundle.
func parseJWTKey(p *types.JWTKey) (jwtsvid.Key, error) {
	if p.GetKeyId() == "" {
		return jwtsvid.Key{}, errors.New("it has no key ID")
	}
	public, err := x509.ParsePKIXPublicKey(p.GetPublicKey())
	if err != nil {
		return jwtsvid.Key{}, err
	}
	switch public := public.(type) {
	case *rsa.PublicKey:
		if n := public.N.BitLen(); n < 2048 { // RFC 7518, section 3.3
			return jwtsvid.Key{}, fmt.Errorf("an RSA key of %d bits, want 2048 or more", n)
		}
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default: // has no JWK: one such key would spoil its whole bundle
			return jwtsvid.Key{}, fmt.Errorf("a key of curve %s, want P-256, P-384 or P-521", public.Curve.Params().Name)
		}
	default:
		return jwtsvid.Key{}, fmt.Errorf("a key of type %T, want RSA or ECDSA", public)
	}
	key := jwtsvid.Key{ID: p.GetKeyId(), Public: public}
	if p.GetExpiresAt() != 0 {
		key.ExpiresAt = time.Unix(p.GetExpiresAt(), 0)
	}
	return key, nil
}
