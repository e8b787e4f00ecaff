package registration

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// FromProto reads an entry off the wire. Fields that the standard leaves to the
// server (revision, creation) are taken as they are; what a valid entry needs
// is checked by [Entry.Validate]. Errors name the field as the message does.
func FromProto(p *types.Entry) (Entry, error) {
	if p == nil {
		return Entry{}, fmt.Errorf("missing entry")
	}
	id, template, err := nameFromProto(p.SpiffeId)
	if err != nil {
		return Entry{}, fmt.Errorf("invalid spiffe ID: %w", err)
	}
	parent, err := IDFromProto(p.ParentId)
	if err != nil {
		return Entry{}, fmt.Errorf("invalid parent ID: %w", err)
	}
	selectors, err := SelectorsFromProto(p.Selectors)
	if err != nil {
		return Entry{}, err
	}
	federates, err := trustDomains(p.FederatesWith)
	if err != nil {
		return Entry{}, err
	}
	return Entry{
		ID:                      p.Id,
		SPIFFEID:                id,
		Template:                template,
		ParentID:                parent,
		Selectors:               selectors,
		X509SVIDTTL:             time.Duration(p.X509SvidTtl) * time.Second,
		JWTSVIDTTL:              time.Duration(p.JwtSvidTtl) * time.Second,
		FederatesWith:           federates,
		Admin:                   p.Admin,
		Downstream:              p.Downstream,
		StoreSVID:               p.StoreSvid,
		ExpiresAt:               unixTime(p.ExpiresAt),
		DNSNames:                p.DnsNames,
		Revision:                p.RevisionNumber,
		CreatedAt:               unixTime(p.CreatedAt),
		Hint:                    p.Hint,
		DisableX509SVIDPrefetch: p.GetAdditionalAttributes().GetDisableX509SvidPrefetch(),
		JWTSVIDIncludeJTI:       p.GetAdditionalAttributes().GetJwtSvidIncludeJti(),
	}, nil
}

// Proto returns the entry as it goes over the wire and into the store.
func (e Entry) Proto() *types.Entry {
	p := &types.Entry{
		Id:             e.ID,
		SpiffeId:       e.nameProto(),
		ParentId:       IDProto(e.ParentID),
		Selectors:      SelectorsProto(e.Selectors),
		X509SvidTtl:    int32(e.X509SVIDTTL / time.Second),
		JwtSvidTtl:     int32(e.JWTSVIDTTL / time.Second),
		Admin:          e.Admin,
		Downstream:     e.Downstream,
		StoreSvid:      e.StoreSVID,
		ExpiresAt:      unixSeconds(e.ExpiresAt),
		DnsNames:       e.DNSNames,
		RevisionNumber: e.Revision,
		CreatedAt:      unixSeconds(e.CreatedAt),
		Hint:           e.Hint,
	}
	for _, td := range e.FederatesWith {
		p.FederatesWith = append(p.FederatesWith, td.Name())
	}
	if e.DisableX509SVIDPrefetch || e.JWTSVIDIncludeJTI {
		p.AdditionalAttributes = &types.Entry_AdditionalAttributes{
			DisableX509SvidPrefetch: e.DisableX509SVIDPrefetch,
			JwtSvidIncludeJti:       e.JWTSVIDIncludeJTI,
		}
	}
	return p
}

// nameFromProto reads what an entry has for a SPIFFE ID: that, or a template.
func nameFromProto(p *types.SPIFFEID) (spiffeid.ID, Template, error) {
	if !IsTemplate(p) {
		id, err := IDFromProto(p)
		return id, Template{}, err
	}
	t, err := TemplateFromProto(p)
	return spiffeid.ID{}, t, err
}

// IsTemplate reports whether a message has an ID template where others have a
// SPIFFE ID.
func IsTemplate(p *types.SPIFFEID) bool { return strings.Contains(p.GetPath(), holeOpen) }

// TemplateFromProto reads an ID template where a message has a SPIFFE ID.
func TemplateFromProto(p *types.SPIFFEID) (Template, error) {
	td, err := spiffeid.TrustDomainFromString(p.GetTrustDomain())
	if err != nil {
		return Template{}, err
	}
	return ParseTemplate(td, p.GetPath())
}

func (e Entry) nameProto() *types.SPIFFEID {
	if !e.Template.IsZero() {
		return &types.SPIFFEID{TrustDomain: e.Template.td.Name(), Path: e.Template.path}
	}
	return IDProto(e.SPIFFEID)
}

// IDFromProto reads a SPIFFE ID; a nil or malformed one is an error.
func IDFromProto(p *types.SPIFFEID) (spiffeid.ID, error) {
	if p == nil {
		return spiffeid.ID{}, fmt.Errorf("request must specify SPIFFE ID")
	}
	td, err := spiffeid.TrustDomainFromString(p.TrustDomain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	return spiffeid.FromPath(td, p.Path)
}

// IDProto returns id as it goes over the wire.
func IDProto(id spiffeid.ID) *types.SPIFFEID {
	return &types.SPIFFEID{TrustDomain: id.TrustDomain().Name(), Path: id.Path()}
}

// SelectorsFromProto reads selectors and returns them sorted and each once.
func SelectorsFromProto(ps []*types.Selector) ([]Selector, error) {
	sel := make([]Selector, 0, len(ps))
	for _, p := range ps {
		s := Selector{Type: p.GetType(), Value: p.GetValue()}
		if err := s.validate(); err != nil {
			return nil, fmt.Errorf("invalid selector %q: %w", s, err)
		}
		sel = append(sel, s)
	}
	if !slices.IsSortedFunc(sel, compareSelectors) {
		slices.SortFunc(sel, compareSelectors)
	}
	return slices.Compact(sel), nil
}

// SelectorsProto returns sel as they go over the wire.
func SelectorsProto(sel []Selector) []*types.Selector {
	ps := make([]*types.Selector, len(sel))
	for i, s := range sel {
		ps[i] = &types.Selector{Type: s.Type, Value: s.Value}
	}
	return ps
}

func trustDomains(names []string) ([]spiffeid.TrustDomain, error) {
	var tds []spiffeid.TrustDomain
	for _, name := range names {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return nil, fmt.Errorf("invalid federated trust domain %q: %w", name, err)
		}
		tds = append(tds, td)
	}
	return tds, nil
}

func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

func unixSeconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
