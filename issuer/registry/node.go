package registry

import (
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// node is an entry in the index, and its place there. Of 100,000 entries most
// have nothing but what is in every entry; a [registration.Entry] of each would
// take 320 bytes where this takes 128. Only at is ever modified, so that what
// has left the lock may be read.
type node struct {
	id       string
	spiffeID spiffeid.ID
	parentID spiffeid.ID

	selectors       []registration.Selector
	created         int64 // Unix seconds; 0 is none
	x509TTL, jwtTTL int32 // seconds
	rest            *rest // nil if all of it is zero
	at              [3]int32
	// pivot is the place, among the selectors, of the one that a node alias is
	// filed under.
	pivot int32
}

// rest is what few entries have; the fields are those of [registration.Entry].
type rest struct {
	template        registration.Template
	federatesWith   []spiffeid.TrustDomain
	dnsNames        []string
	hint            string
	expiresAt       time.Time
	revision        int64
	admin           bool
	downstream      bool
	storeSVID       bool
	disablePrefetch bool
	includeJTI      bool
}

// The lists that a node is in, and where its place in each is in at.
const (
	inParent   = iota
	inSPIFFEID // or, with a template, among these
	inAliases
)

// newNode makes a node of an entry. It keeps the entry's slices.
func newNode(e registration.Entry) *node {
	n := &node{
		id: e.ID, spiffeID: e.SPIFFEID, parentID: e.ParentID, selectors: e.Selectors,
		x509TTL: int32(e.X509SVIDTTL / time.Second), jwtTTL: int32(e.JWTSVIDTTL / time.Second),
	}
	if !e.CreatedAt.IsZero() {
		n.created = e.CreatedAt.Unix()
	}
	few := e.Admin || e.Downstream || e.StoreSVID || e.DisableX509SVIDPrefetch || e.JWTSVIDIncludeJTI
	if few || !e.Template.IsZero() || len(e.FederatesWith) > 0 || len(e.DNSNames) > 0 || e.Hint != "" ||
		!e.ExpiresAt.IsZero() || e.Revision != 0 {
		n.rest = &rest{
			template: e.Template, federatesWith: e.FederatesWith, dnsNames: e.DNSNames, hint: e.Hint,
			expiresAt: e.ExpiresAt, revision: e.Revision, admin: e.Admin, downstream: e.Downstream,
			storeSVID: e.StoreSVID, disablePrefetch: e.DisableX509SVIDPrefetch, includeJTI: e.JWTSVIDIncludeJTI,
		}
	}
	return n
}

// entry is what the node was made of.
func (n *node) entry() registration.Entry {
	e := registration.Entry{
		ID: n.id, SPIFFEID: n.spiffeID, ParentID: n.parentID, Selectors: n.selectors,
		X509SVIDTTL: time.Duration(n.x509TTL) * time.Second, JWTSVIDTTL: time.Duration(n.jwtTTL) * time.Second,
	}
	if n.created != 0 {
		e.CreatedAt = time.Unix(n.created, 0).UTC()
	}
	if r := n.rest; r != nil {
		e.Template, e.FederatesWith, e.DNSNames, e.Hint = r.template, r.federatesWith, r.dnsNames, r.hint
		e.ExpiresAt, e.Revision, e.Admin, e.Downstream = r.expiresAt, r.revision, r.admin, r.downstream
		e.StoreSVID, e.DisableX509SVIDPrefetch, e.JWTSVIDIncludeJTI = r.storeSVID, r.disablePrefetch, r.includeJTI
	}
	return e
}

func (n *node) template() registration.Template { return n.more().template }

// more is the rest, whether there is any or not.
func (n *node) more() rest {
	if n.rest == nil {
		return rest{}
	}
	return *n.rest
}

// expires reports whether the entry has an expiry at all.
func (n *node) expires() bool { return n.rest != nil && !n.rest.expiresAt.IsZero() }

func (n *node) expired(now time.Time) bool { return n.expiredAt(now.Unix()) }

// expiredAt is [registration.Entry.Expired] at a second of Unix time.
func (n *node) expiredAt(second int64) bool { return n.expires() && second >= n.rest.expiresAt.Unix() }

// equal reports whether both were made of the same entry.
func (n *node) equal(o *node) bool {
	return n.id == o.id && n.spiffeID == o.spiffeID && n.parentID == o.parentID && slices.Equal(n.selectors, o.selectors) &&
		n.created == o.created && n.x509TTL == o.x509TTL && n.jwtTTL == o.jwtTTL && n.more().equal(o.more())
}

func (r rest) equal(o rest) bool {
	return r.template == o.template && slices.Equal(r.federatesWith, o.federatesWith) && slices.Equal(r.dnsNames, o.dnsNames) &&
		r.hint == o.hint && r.expiresAt.Equal(o.expiresAt) && r.revision == o.revision && r.admin == o.admin &&
		r.downstream == o.downstream && r.storeSVID == o.storeSVID && r.disablePrefetch == o.disablePrefetch && r.includeJTI == o.includeJTI
}

// bytes is about what the node takes, with what it may share with others.
func (n *node) bytes() int {
	size := 128 + len(n.id) + len(n.spiffeID.String()) + len(n.parentID.String())
	for _, s := range n.selectors {
		size += 32 + len(s.Type) + len(s.Value)
	}
	if n.rest == nil {
		return size
	}
	size += 160 + len(n.rest.hint) + len(n.rest.template.String())
	for _, name := range n.rest.dnsNames {
		size += 16 + len(name)
	}
	for _, td := range n.rest.federatesWith {
		size += 16 + len(td.Name())
	}
	return size
}
