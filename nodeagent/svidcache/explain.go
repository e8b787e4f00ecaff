package svidcache

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// maxNear is how many entries that a caller nearly has are told.
const maxNear = 5

// Explanation is what the agent's operator is told of a caller's identities. It
// is none of the caller's business.
type Explanation struct {
	// Matches are the entries whose selectors the caller has all of, by ID.
	Matches []Near
	// Near are other entries, those that lack the least first: at most 5. Node
	// aliases, which no workload can have, are left out.
	Near []Near
	// Entries is how many the agent has in all.
	Entries int
	// Parent is what all entries for workloads have for parent or, where there is
	// none yet, what the only node alias calls the agent. Zero: neither.
	Parent spiffeid.ID
}

// Near is an entry, and how far a caller is from having its identity.
type Near struct {
	// Entry has the SPIFFE ID filled in where it is an instance of a template.
	Entry registration.Entry
	// Missing are the entry's selectors that the caller doesn't have.
	Missing []registration.Selector
	// Withheld says why an entry is not served though nothing is missing.
	Withheld string
	// State is the SVID's, where it is served: "served until TIME", "being
	// issued", "refused by the issuer: WHY".
	State string
}

// Explain says which entries a caller has, which it nearly has, and what is
// missing. It reads all entries.
func (c *Cache) Explain(caller Caller) Explanation {
	caller = caller.normal()
	x := Explanation{}
	c.mu.Lock()
	all := make([]*fields, 0, len(c.records))
	for _, r := range c.records {
		all = append(all, r.fields)
	}
	x.Matches = c.matches(caller)
	c.mu.Unlock()
	x.Entries = len(all)
	x.Near, x.Parent = nearest(caller, all), commonParent(all)
	return x
}

// commonParent is [Explanation].Parent.
func commonParent(all []*fields) spiffeid.ID {
	var parents, aliases []spiffeid.ID
	for _, f := range all {
		if f.isNodeAlias() {
			aliases = append(aliases, f.spiffeID)
		} else if len(parents) == 0 || parents[0] != *f.parentID {
			parents = append(parents, *f.parentID)
		}
	}
	switch {
	case len(parents) == 1:
		return parents[0]
	case len(parents) == 0 && len(aliases) == 1:
		return aliases[0]
	}
	return spiffeid.ID{}
}

// matches are the entries that the caller has all selectors of.
func (c *Cache) matches(caller Caller) []Near {
	given := c.match(caller)
	now := c.cfg.Now()
	var found []Near
	for _, sel := range caller.Selectors {
		for r := c.index[sel].first; r != nil; r = r.next {
			if hasAll(caller.Selectors, r.selectors) {
				found = append(found, c.judge(r, caller, given, now))
			}
		}
	}
	slices.SortFunc(found, func(a, b Near) int { return cmp.Compare(a.Entry.ID, b.Entry.ID) })
	return found
}

// judge says why a caller that has all of r's selectors is given it, or is not.
func (c *Cache) judge(r *record, caller Caller, given []*record, now time.Time) Near {
	n := Near{Entry: r.entry()}
	switch more := r.more(); {
	case more.storeSVID:
		n.Withheld = "it is stored elsewhere (store_svid), and not served to workloads"
	case r.ended:
		n.Withheld = fmt.Sprintf("the entry ended at %s", unixTime(more.expiresAt).Format(time.RFC3339))
	case !caller.may(r.selectors):
		n.Withheld = fmt.Sprintf("this socket gives only the identities of entries with the selector %s", caller.Only)
	case r.isTemplate():
		id, err := more.template.Instance(caller.Selectors)
		if err != nil {
			n.Withheld = fmt.Sprintf("its ID %s can't be made: %v", more.template, err)
			return n
		}
		n.Entry = r.instance(id).entry()
	}
	i, ok := slices.BinarySearchFunc(given, n.Entry.ID, func(r *record, id string) int { return cmp.Compare(r.id, id) })
	switch {
	case n.Withheld != "":
	case ok:
		n.State = given[i].state(now)
	default:
		n.Withheld = "another of the caller's entries with the hint " + n.Entry.Hint + " is older"
		for _, other := range given {
			if other.more().hint == n.Entry.Hint {
				n.Withheld = fmt.Sprintf("entry %s has the same hint, %q, and is older", other.id, n.Entry.Hint)
			}
		}
	}
	return n
}

// state is that of a record's SVID, in words.
func (r *record) state(now time.Time) string {
	l := r.live
	switch {
	case l != nil && l.svid != nil && !l.svid.expired(now):
		text := "served until " + l.svid.notAfter.UTC().Format(time.RFC3339)
		if l.fails > 0 {
			text += "; not renewed: " + l.reason
		}
		return text
	case l != nil && l.fails > 0 && l.unreachable:
		return "being issued: " + l.reason
	case l != nil && l.fails > 0:
		return "refused by the issuer: " + l.reason
	case r.active():
		return "being issued"
	}
	return "to be issued when the process asks for it"
}

// nearest returns the entries that lack the fewest selectors, of those that lack
// any; the smallest IDs of several.
func nearest(caller Caller, all []*fields) []Near {
	type candidate struct {
		*fields
		lacks int
	}
	closer := func(a, b candidate) int { return cmp.Or(cmp.Compare(a.lacks, b.lacks), cmp.Compare(a.id, b.id)) }
	var best []candidate
	for _, f := range all {
		one := candidate{f, lacks(caller.Selectors, f.selectors)}
		if one.lacks == 0 || f.more().storeSVID || f.isNodeAlias() {
			continue
		}
		i, _ := slices.BinarySearchFunc(best, one, closer)
		if i < maxNear {
			best = slices.Insert(best, i, one)[:min(len(best)+1, maxNear)]
		}
	}
	var near []Near
	for _, one := range best {
		near = append(near, Near{Entry: one.entry(), Missing: missing(caller.Selectors, one.selectors)})
	}
	return near
}
