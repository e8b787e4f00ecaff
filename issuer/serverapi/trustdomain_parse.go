package serverapi

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// parseRelationship reads the parts of a relationship that the mask names from a
// request, all of them without a mask; the others are left out. The texts are
// SPIRE's.
func parseRelationship(p *types.FederationRelationship, mask *types.FederationRelationshipMask) (*types.FederationRelationship, error) {
	if p == nil {
		return nil, errors.New("missing federation relationship")
	}
	td, err := spiffeid.TrustDomainFromString(p.GetTrustDomain())
	if err != nil {
		return nil, fmt.Errorf("failed to parse trust domain: %w", err)
	}
	r := &types.FederationRelationship{TrustDomain: td.Name()}
	if mask == nil || mask.BundleEndpointUrl {
		if r.BundleEndpointUrl, err = parseEndpointURL(p.GetBundleEndpointUrl()); err != nil {
			return nil, err
		}
	}
	if mask == nil || mask.BundleEndpointProfile {
		if err := parseEndpointProfile(r, p); err != nil {
			return nil, err
		}
	}
	if b := p.GetTrustDomainBundle(); b != nil && (mask == nil || mask.TrustDomainBundle) {
		if r.TrustDomainBundle, err = parseBundle(b); err != nil {
			return nil, fmt.Errorf("failed to parse bundle: %w", err)
		}
		if r.TrustDomainBundle.TrustDomain != td.Name() {
			return nil, fmt.Errorf("trust domain bundle (%q) must match the trust domain of the federation relationship (%q)", b.GetTrustDomain(), td)
		}
	}
	return r, nil
}

// maxURLBytes bounds the URL of a bundle endpoint.
const maxURLBytes = 2048

func parseEndpointURL(text string) (string, error) {
	if len(text) > maxURLBytes {
		return "", fmt.Errorf("bundle endpoint URL has %d bytes, at most %d", len(text), maxURLBytes)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", fmt.Errorf("failed to parse bundle endpoint URL: %w", err)
	case u.Scheme != "https":
		return "", errors.New("bundle endpoint URL must use the https scheme")
	case u.Hostname() == "":
		return "", errors.New("bundle endpoint URL must specify the host")
	case u.User != nil:
		return "", errors.New("bundle endpoint URL must not contain user info")
	}
	return u.String(), nil
}

func parseEndpointProfile(to, from *types.FederationRelationship) error {
	switch profile := from.GetBundleEndpointProfile().(type) {
	case *types.FederationRelationship_HttpsWeb:
		to.BundleEndpointProfile = &types.FederationRelationship_HttpsWeb{HttpsWeb: &types.HTTPSWebProfile{}}
	case *types.FederationRelationship_HttpsSpiffe:
		if profile.HttpsSpiffe == nil {
			return errors.New(`bundle endpoint profile does not contain "HttpsSpiffe"`)
		}
		id, err := spiffeid.FromString(profile.HttpsSpiffe.GetEndpointSpiffeId())
		if err != nil {
			return fmt.Errorf("failed to parse endpoint SPIFFE ID: %w", err)
		}
		to.BundleEndpointProfile = &types.FederationRelationship_HttpsSpiffe{
			HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: id.String()},
		}
	default:
		return fmt.Errorf("unsupported bundle endpoint profile type: %T", profile)
	}
	return nil
}
