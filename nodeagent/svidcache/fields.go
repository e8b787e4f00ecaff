package svidcache

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// fields is what an entry says, in 112 bytes where a [registration.Entry] takes
// 320: an agent may have 100,000. It is immutable, so that what has left the
// lock may be read; an entry that changes is given other fields.
type fields struct {
	id              string
	spiffeID        spiffeid.ID
	parentID        *spiffeid.ID            // shared: most entries have the same
	selectors       []registration.Selector // ordered, each once
	created         int64                   // Unix seconds; 0 is none
	revision        int64
	x509TTL, jwtTTL int32 // seconds
	rest            *rest // nil if all of it is zero
}

// rest is what few entries have; the fields are those of [registration.Entry].
type rest struct {
	template        registration.Template
	federatesWith   []spiffeid.TrustDomain
	dnsNames        []string
	hint            string
	expiresAt       int64 // Unix seconds; 0 is never
	admin           bool
	downstream      bool
	storeSVID       bool
	disablePrefetch bool
	includeJTI      bool
}

// fieldsOf keeps the slices of e.
func (c *Cache) fieldsOf(e registration.Entry) *fields {
	f := &fields{
		id: e.ID, spiffeID: e.SPIFFEID, parentID: c.shareParent(e.ParentID), selectors: registration.SortedSelectors(e.Selectors),
		created: unixSeconds(e.CreatedAt), revision: e.Revision,
		x509TTL: int32(e.X509SVIDTTL / time.Second), jwtTTL: int32(e.JWTSVIDTTL / time.Second),
	}
	few := e.Admin || e.Downstream || e.StoreSVID || e.DisableX509SVIDPrefetch || e.JWTSVIDIncludeJTI
	if few || !e.Template.IsZero() || len(e.FederatesWith) > 0 || len(e.DNSNames) > 0 || e.Hint != "" || !e.ExpiresAt.IsZero() {
		f.rest = &rest{
			template: e.Template, federatesWith: e.FederatesWith, dnsNames: e.DNSNames, hint: e.Hint, expiresAt: unixSeconds(e.ExpiresAt),
			admin: e.Admin, downstream: e.Downstream, storeSVID: e.StoreSVID,
			disablePrefetch: e.DisableX509SVIDPrefetch, includeJTI: e.JWTSVIDIncludeJTI,
		}
	}
	return f
}

// maxParents bounds the parents that are shared. An agent's entries have few: its
// own ID and those of its aliases.
const maxParents = 1000

func (c *Cache) shareParent(id spiffeid.ID) *spiffeid.ID {
	if p := c.parents[id]; p != nil {
		return p
	}
	if len(c.parents) < maxParents {
		c.parents[id] = &id
	}
	return &id
}

func unixSeconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// entry is what the fields were made of.
func (f *fields) entry() registration.Entry {
	e := registration.Entry{
		ID: f.id, SPIFFEID: f.spiffeID, ParentID: *f.parentID, Selectors: f.selectors,
		X509SVIDTTL: time.Duration(f.x509TTL) * time.Second, JWTSVIDTTL: time.Duration(f.jwtTTL) * time.Second,
		CreatedAt: unixTime(f.created), Revision: f.revision,
	}
	if r := f.rest; r != nil {
		e.Template, e.FederatesWith, e.DNSNames, e.Hint, e.ExpiresAt = r.template, r.federatesWith, r.dnsNames, r.hint, unixTime(r.expiresAt)
		e.Admin, e.Downstream, e.StoreSVID = r.admin, r.downstream, r.storeSVID
		e.DisableX509SVIDPrefetch, e.JWTSVIDIncludeJTI = r.disablePrefetch, r.includeJTI
	}
	return e
}

// more is the rest, whether there is any or not.
func (f *fields) more() rest {
	if f.rest == nil {
		return rest{}
	}
	return *f.rest
}

// is reports whether e says what f says.
func (f *fields) is(e registration.Entry) bool {
	m := f.more()
	return f.id == e.ID && f.revision == e.Revision && f.spiffeID == e.SPIFFEID && *f.parentID == e.ParentID &&
		f.created == unixSeconds(e.CreatedAt) && f.x509TTL == int32(e.X509SVIDTTL/time.Second) && f.jwtTTL == int32(e.JWTSVIDTTL/time.Second) &&
		m.template == e.Template && m.hint == e.Hint && m.expiresAt == unixSeconds(e.ExpiresAt) &&
		m.admin == e.Admin && m.downstream == e.Downstream && m.storeSVID == e.StoreSVID &&
		m.disablePrefetch == e.DisableX509SVIDPrefetch && m.includeJTI == e.JWTSVIDIncludeJTI &&
		slices.Equal(f.selectors, e.Selectors) && slices.Equal(m.federatesWith, e.FederatesWith) && slices.Equal(m.dnsNames, e.DNSNames)
}

func (f *fields) isTemplate() bool { return f.rest != nil && !f.rest.template.IsZero() }

// isNodeAlias reports whether the entry gives an agent, and no workload, another
// ID.
func (f *fields) isNodeAlias() bool {
	return slices.ContainsFunc(f.selectors, func(s registration.Selector) bool { return s.Type == "spiffe_id" })
}

// expired reports whether the entry has an end that is not after now.
func (f *fields) expired(now time.Time) bool {
	return f.rest != nil && f.rest.expiresAt != 0 && now.Unix() >= f.rest.expiresAt
}

// sameCertificate reports whether an SVID for f serves g. Extending this is all
// that a new field of the certificate needs.
func (f *fields) sameCertificate(g *fields) bool {
	return f.spiffeID == g.spiffeID && f.more().template == g.more().template && f.x509TTL == g.x509TTL &&
		slices.Equal(f.more().dnsNames, g.more().dnsNames)
}

// sameCallers reports whether the same callers have both, given the others.
func (f *fields) sameCallers(g *fields) bool {
	a, b := f.more(), g.more()
	return f.spiffeID == g.spiffeID && f.created == g.created && a.template == b.template && a.hint == b.hint &&
		a.storeSVID == b.storeSVID && a.expiresAt == b.expiresAt && slices.Equal(f.selectors, g.selectors)
}

// sameAnswer reports whether answers with both, given the same SVIDs, say the
// same. Beyond their encoding they tell delegates who may have them.
func (f *fields) sameAnswer(g *fields) bool {
	a, b := f.more(), g.more()
	return a.hint == b.hint && a.admin == b.admin && a.downstream == b.downstream && slices.Equal(a.federatesWith, b.federatesWith)
}

func compareSelectors(a, b registration.Selector) int {
	return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Value, b.Value))
}

// hasAll reports whether all of want are among have; both are ordered. It is true
// of none.
func hasAll(have, want []registration.Selector) bool {
	if len(want) > len(have) {
		return false
	}
	for _, w := range want {
		i, ok := slices.BinarySearchFunc(have, w, compareSelectors)
		if !ok {
			return false
		}
		have = have[i+1:]
	}
	return true
}

// lacks counts those of want that are not among have; both are ordered.
func lacks(have, want []registration.Selector) int {
	n := 0
	for _, w := range want {
		if _, ok := slices.BinarySearchFunc(have, w, compareSelectors); !ok {
			n++
		}
	}
	return n
}

// missing returns those of want that are not among have; both are ordered.
func missing(have, want []registration.Selector) []registration.Selector {
	var lack []registration.Selector
	for _, w := range want {
		if _, ok := slices.BinarySearchFunc(have, w, compareSelectors); !ok {
			lack = append(lack, w)
		}
	}
	return lack
}
