package serverapi

import (
	"errors"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// entryProto returns e with the fields that the mask names, all of them without
// a mask. The ID is always there.
func entryProto(e registration.Entry, mask *types.EntryMask) *types.Entry {
	p := e.Proto()
	if mask == nil {
		return p
	}
	masked := &types.Entry{Id: p.Id}
	for _, f := range entryFields {
		if f.in(mask) {
			f.copy(masked, p)
		}
	}
	return masked
}

// entryField is one field of an entry that a mask can name.
type entryField struct {
	in   func(*types.EntryMask) bool
	copy func(to, from *types.Entry)
}

// entryFields are all fields but the ID.
var entryFields = []entryField{
	{(*types.EntryMask).GetSpiffeId, func(to, from *types.Entry) { to.SpiffeId = from.SpiffeId }},
	{(*types.EntryMask).GetParentId, func(to, from *types.Entry) { to.ParentId = from.ParentId }},
	{(*types.EntryMask).GetSelectors, func(to, from *types.Entry) { to.Selectors = from.Selectors }},
	{(*types.EntryMask).GetX509SvidTtl, func(to, from *types.Entry) { to.X509SvidTtl = from.X509SvidTtl }},
	{(*types.EntryMask).GetJwtSvidTtl, func(to, from *types.Entry) { to.JwtSvidTtl = from.JwtSvidTtl }},
	{(*types.EntryMask).GetFederatesWith, func(to, from *types.Entry) { to.FederatesWith = from.FederatesWith }},
	{(*types.EntryMask).GetAdmin, func(to, from *types.Entry) { to.Admin = from.Admin }},
	{(*types.EntryMask).GetDownstream, func(to, from *types.Entry) { to.Downstream = from.Downstream }},
	{(*types.EntryMask).GetExpiresAt, func(to, from *types.Entry) { to.ExpiresAt = from.ExpiresAt }},
	{(*types.EntryMask).GetDnsNames, func(to, from *types.Entry) { to.DnsNames = from.DnsNames }},
	{(*types.EntryMask).GetRevisionNumber, func(to, from *types.Entry) { to.RevisionNumber = from.RevisionNumber }},
	{(*types.EntryMask).GetStoreSvid, func(to, from *types.Entry) { to.StoreSvid = from.StoreSvid }},
	{(*types.EntryMask).GetHint, func(to, from *types.Entry) { to.Hint = from.Hint }},
	{(*types.EntryMask).GetCreatedAt, func(to, from *types.Entry) { to.CreatedAt = from.CreatedAt }},
	{(*types.EntryMask).GetAdditionalAttributes, func(to, from *types.Entry) { to.AdditionalAttributes = from.AdditionalAttributes }},
}

// patch is the change that an update asks for: some fields of an entry.
type patch struct {
	mask *types.EntryMask
	with registration.Entry
}

// readPatch reads the masked fields of an update; the others may be missing or
// malformed.
func readPatch(p *types.Entry, mask *types.EntryMask) (patch, error) {
	if p == nil {
		return patch{}, errors.New("missing entry")
	}
	if mask == nil {
		with, err := registration.FromProto(p)
		return patch{with: with}, err
	}
	// Whatever is not asked for is replaced by something that can be read.
	from := &types.Entry{
		SpiffeId:  &types.SPIFFEID{TrustDomain: "unused.test"},
		ParentId:  &types.SPIFFEID{TrustDomain: "unused.test"},
		Selectors: []*types.Selector{},
	}
	for _, f := range entryFields {
		if f.in(mask) {
			f.copy(from, p)
		}
	}
	with, err := registration.FromProto(from)
	return patch{mask: mask, with: with}, err
}

// apply changes e as the update says. The store counts its revision.
func (p patch) apply(e *registration.Entry) {
	if p.mask == nil {
		*e = p.with
		return
	}
	set(p.mask.GetSpiffeId(), &e.SPIFFEID, p.with.SPIFFEID)
	set(p.mask.GetSpiffeId(), &e.Template, p.with.Template)
	set(p.mask.GetParentId(), &e.ParentID, p.with.ParentID)
	set(p.mask.GetSelectors(), &e.Selectors, p.with.Selectors)
	set(p.mask.GetX509SvidTtl(), &e.X509SVIDTTL, p.with.X509SVIDTTL)
	set(p.mask.GetJwtSvidTtl(), &e.JWTSVIDTTL, p.with.JWTSVIDTTL)
	set(p.mask.GetFederatesWith(), &e.FederatesWith, p.with.FederatesWith)
	set(p.mask.GetAdmin(), &e.Admin, p.with.Admin)
	set(p.mask.GetDownstream(), &e.Downstream, p.with.Downstream)
	set(p.mask.GetExpiresAt(), &e.ExpiresAt, p.with.ExpiresAt)
	set(p.mask.GetDnsNames(), &e.DNSNames, p.with.DNSNames)
	set(p.mask.GetStoreSvid(), &e.StoreSVID, p.with.StoreSVID)
	set(p.mask.GetHint(), &e.Hint, p.with.Hint)
	set(p.mask.GetAdditionalAttributes(), &e.DisableX509SVIDPrefetch, p.with.DisableX509SVIDPrefetch)
	set(p.mask.GetAdditionalAttributes(), &e.JWTSVIDIncludeJTI, p.with.JWTSVIDIncludeJTI)
}

func set[T any](asked bool, field *T, value T) {
	if asked {
		*field = value
	}
}
