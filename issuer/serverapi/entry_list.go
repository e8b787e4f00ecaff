package serverapi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
)

// CountEntries counts the entries that the filter selects.
func (s *EntryService) CountEntries(_ context.Context, req *entryv1.CountEntriesRequest) (*entryv1.CountEntriesResponse, error) {
	var f registry.Filter
	if req.GetFilter() != nil {
		var err error
		if f, err = s.filter(req.GetFilter()); err != nil {
			return nil, err
		}
	}
	return &entryv1.CountEntriesResponse{Count: int32(s.deps.Registry.Count(f))}, nil
}

// ListEntries returns the entries that the filter selects, by ID. A page size of
// 0 or less asks for all of them. Answers are cut where they would not fit a
// message; the token then leads on, whatever the page size.
func (s *EntryService) ListEntries(_ context.Context, req *entryv1.ListEntriesRequest) (*entryv1.ListEntriesResponse, error) {
	var f registry.Filter
	if req.GetFilter() != nil {
		var err error
		if f, err = s.filter(req.GetFilter()); err != nil {
			return nil, err
		}
	}
	after, err := parseEntryToken(req.GetPageToken())
	if err != nil {
		return nil, statusError(codes.InvalidArgument, "malformed page token", err)
	}
	resp := &entryv1.ListEntriesResponse{}
	paged := req.GetPageSize() > 0
	room := budget(maxAnswer)
	for e := range s.deps.Registry.Entries(f, after) {
		if paged && len(resp.Entries) == int(req.GetPageSize()) {
			break
		}
		p := entryProto(e, req.GetOutputMask())
		if !room.take(p) {
			paged = true // from here on
			break
		}
		resp.Entries = append(resp.Entries, p)
		after = e.ID
	}
	// As with SPIRE, every page that is not empty has a token, even the last.
	if paged && len(resp.Entries) > 0 {
		resp.NextPageToken = entryToken(after)
	}
	return resp, nil
}

// entryFilter is what the filters of the two requests have in common: all.
type entryFilter interface {
	GetBySpiffeId() *types.SPIFFEID
	GetByParentId() *types.SPIFFEID
	GetBySelectors() *types.SelectorMatch
	GetByFederatesWith() *types.FederatesWithMatch
	GetByHint() *wrapperspb.StringValue
	GetByDownstream() *wrapperspb.BoolValue
}

// filter reads a filter; what is malformed is InvalidArgument.
func (s *EntryService) filter(p entryFilter) (registry.Filter, error) {
	f := registry.Filter{Hint: p.GetByHint().GetValue()}
	var err error
	if p.GetByParentId() != nil {
		if f.ParentID, err = s.memberID(p.GetByParentId()); err != nil {
			return f, statusError(codes.InvalidArgument, "malformed parent ID filter", err)
		}
	}
	if p.GetBySpiffeId() != nil {
		if f.SPIFFEID, f.Template, err = s.workloadName(p.GetBySpiffeId()); err != nil {
			return f, statusError(codes.InvalidArgument, "malformed SPIFFE ID filter", err)
		}
	}
	if m := p.GetBySelectors(); m != nil {
		if f.Selectors, err = filterSelectors(m); err != nil {
			return f, statusError(codes.InvalidArgument, "malformed selectors filter", err)
		}
		f.SelectorsMatch = registry.Match(m.GetMatch())
	}
	if m := p.GetByFederatesWith(); m != nil {
		if f.FederatesWith, err = filterTrustDomains(m); err != nil {
			return f, statusError(codes.InvalidArgument, "malformed federates with filter", err)
		}
		f.FederatesWithMatch = registry.Match(m.GetMatch())
	}
	// SPIRE's server takes false for no filter, and its command line always sends it.
	if p.GetByDownstream().GetValue() {
		f.Downstream = new(true)
	}
	return f, nil
}

func (s *EntryService) memberID(p *types.SPIFFEID) (spiffeid.ID, error) {
	id, err := registration.IDFromProto(p)
	switch {
	case err != nil:
		return id, err
	case !id.MemberOf(s.deps.TrustDomain):
		return id, fmt.Errorf("%q is not a member of trust domain %q", id, s.deps.TrustDomain.Name())
	case id.Path() == "":
		return id, fmt.Errorf("%q is not a member of trust domain %q; path is empty", id, s.deps.TrustDomain.Name())
	}
	return id, nil
}

// workloadName reads what an entry has for a SPIFFE ID: that, or a template.
func (s *EntryService) workloadName(p *types.SPIFFEID) (spiffeid.ID, registration.Template, error) {
	if registration.IsTemplate(p) {
		t, err := registration.TemplateFromProto(p)
		return spiffeid.ID{}, t, err
	}
	id, err := registration.IDFromProto(p)
	if err != nil {
		return id, registration.Template{}, err
	}
	return id, registration.Template{}, registration.WorkloadID(s.deps.TrustDomain, id)
}

func filterSelectors(m *types.SelectorMatch) ([]registration.Selector, error) {
	if err := knownMatch(int32(m.GetMatch()), types.SelectorMatch_MatchBehavior_name); err != nil {
		return nil, err
	}
	if len(m.GetSelectors()) == 0 {
		return nil, errors.New("empty selector set")
	}
	return registration.SelectorsFromProto(m.GetSelectors())
}

func filterTrustDomains(m *types.FederatesWithMatch) ([]spiffeid.TrustDomain, error) {
	if err := knownMatch(int32(m.GetMatch()), types.FederatesWithMatch_MatchBehavior_name); err != nil {
		return nil, err
	}
	if len(m.GetTrustDomains()) == 0 {
		return nil, errors.New("empty trust domain set")
	}
	var tds []spiffeid.TrustDomain
	for _, name := range m.GetTrustDomains() {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return nil, err
		}
		tds = append(tds, td)
	}
	return tds, nil
}

func knownMatch(match int32, names map[int32]string) error {
	if _, ok := names[match]; !ok {
		return fmt.Errorf("unknown match behavior %d", match)
	}
	return nil
}

// A page token of entries is a version and the ID of the last entry of the page
// before, so that it stays good whatever is created or deleted meanwhile. It is
// encoded only to say that it is not for clients to read.
const entryTokenVersion = "1"

func entryToken(last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(entryTokenVersion + last))
}

// parseEntryToken returns the ID behind which the page begins; "" is the first.
func parseEntryToken(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(data) < 2 || string(data[:1]) != entryTokenVersion || entryToken(string(data[1:])) != token {
		return "", fmt.Errorf("%.64q is not a token of this issuer: begin again without one", token)
	}
	return string(data[1:]), nil
}
