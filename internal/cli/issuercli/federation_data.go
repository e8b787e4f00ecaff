package issuercli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// relationshipsJSON is the file format of federation create and update -data, which SPIRE shares.
type relationshipsJSON struct {
	Relationships []relationshipJSON `json:"federationRelationships"`
}

type relationshipJSON struct {
	TrustDomain string          `json:"trustDomain"`
	URL         string          `json:"bundleEndpointURL"`
	Profile     string          `json:"bundleEndpointProfile"`
	EndpointID  string          `json:"endpointSPIFFEID"`
	Bundle      json.RawMessage `json:"trustDomainBundle"`
	Format      string          `json:"trustDomainBundleFormat"`
}

// relationships reads a -data file. Every faulty relationship is named.
func (f dataFile) relationships() ([]*types.FederationRelationship, error) {
	var file relationshipsJSON
	err := f.decode(&file, "federationRelationships", "trustDomain", "bundleEndpointURL", "bundleEndpointProfile", "endpointSPIFFEID", "trustDomainBundle", "trustDomainBundleFormat")
	if err != nil {
		return nil, err
	}
	var all []*types.FederationRelationship
	var errs []error
	for i, r := range file.Relationships {
		fr, err := r.proto()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: relationship %d: %w", f.name, i+1, err))
			continue
		}
		all = append(all, fr)
	}
	if len(file.Relationships) == 0 {
		errs = append(errs, fmt.Errorf(`%s holds no relationships: want {"federationRelationships": [{"trustDomain": …}]}`, f.name))
	}
	return all, errors.Join(errs...)
}

func (r relationshipJSON) proto() (*types.FederationRelationship, error) {
	td, tdErr := spiffeid.TrustDomainFromString(r.TrustDomain)
	if tdErr != nil {
		tdErr = fmt.Errorf("trustDomain %q: %w", r.TrustDomain, tdErr)
	}
	fr := &types.FederationRelationship{TrustDomain: td.Name(), BundleEndpointUrl: r.URL}
	bundleErr := tdErr
	if tdErr == nil {
		bundleErr = nil
		bundle, err := r.bundle(td)
		if err != nil {
			bundleErr = fmt.Errorf("trustDomainBundle: %w", err)
		}
		fr.TrustDomainBundle = bundle
	} else {
		bundleErr = nil
	}
	err := oneLine(tdErr, endpointURL("bundleEndpointURL", r.URL), setProfile(fr, r.Profile, r.EndpointID, "bundleEndpointProfile", "endpointSPIFFEID"), bundleErr)
	if err != nil {
		return nil, err
	}
	return fr, nil
}

// bundle reads the bundle written into the file: PEM as a string, a SPIFFE bundle document as it is.
func (r relationshipJSON) bundle(td spiffeid.TrustDomain) (*types.Bundle, error) {
	if len(r.Bundle) == 0 || string(r.Bundle) == "null" {
		return nil, nil
	}
	f := bundleFormat{cli.Choice{Value: "pem", Accepts: []string{"pem", "spiffe"}}}
	if r.Format != "" {
		if err := f.Set(r.Format); err != nil {
			return nil, fmt.Errorf("trustDomainBundleFormat: %w", err)
		}
	}
	raw := []byte(r.Bundle)
	if f.Value == "pem" {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, errors.New(`want the certificates in one string, or trustDomainBundleFormat "spiffe"`)
		}
		raw = []byte(text)
	}
	return f.decode(raw, td)
}

// endpointURL checks a bundle endpoint as SPIRE does; name is what the operator wrote it behind.
func endpointURL(name, value string) error {
	switch u, err := url.Parse(value); {
	case value == "":
		return fmt.Errorf("%s is missing: the https:// address of its bundle endpoint", name)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case u.Scheme != "https":
		return fmt.Errorf("%s %q: want https://…", name, value)
	case u.Host == "":
		return fmt.Errorf("%s %q names no host", name, value)
	case u.User != nil:
		return fmt.Errorf("%s: no user or password may be in it", name)
	}
	return nil
}

var profiles = []string{"https_web", "https_spiffe"}

// setProfile sets how the endpoint is authenticated; the names are what the operator wrote the values behind.
func setProfile(fr *types.FederationRelationship, profile, endpointID, profileName, idName string) error {
	switch {
	case profile == "":
		return fmt.Errorf("%s is missing: %s", profileName, strings.Join(profiles, " or "))
	case !slices.Contains(profiles, profile):
		return fmt.Errorf("%s %q is unknown; accepted: %s", profileName, profile, strings.Join(profiles, ", "))
	case profile == "https_web" && endpointID != "":
		return fmt.Errorf("%s goes with https_spiffe only", idName)
	case profile == "https_web":
		fr.BundleEndpointProfile = &types.FederationRelationship_HttpsWeb{HttpsWeb: &types.HTTPSWebProfile{}}
		return nil
	case endpointID == "":
		return fmt.Errorf("%s is missing: https_spiffe needs the SPIFFE ID of the endpoint", idName)
	}
	if _, err := spiffeid.FromString(endpointID); err != nil {
		return fmt.Errorf("%s %q is no SPIFFE ID: %w", idName, endpointID, err)
	}
	fr.BundleEndpointProfile = &types.FederationRelationship_HttpsSpiffe{HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: endpointID}}
	return nil
}
