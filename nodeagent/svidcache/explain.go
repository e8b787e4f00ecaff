package svidcache

import (
	"cmp"
	"slices"
	"time"

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
	set := registration.NewSelectorSet(caller.Selectors...)
	c.mu.Lock()
	defer c.mu.Unlock()
	x := Explanation{Entries: len(c.records)}
	for _, r := range c.records {
		if isNodeAlias(r.entry) {
			continue
		}
		n := Near{Entry: r.entry, Missing: slices.DeleteFunc(slices.Clone(r.entry.Selectors), func(s registration.Selector) bool {
			_, has := set[s]
			return has
		})}
		if len(n.Missing) == 0 {
			x.Matches = append(x.Matches, n)
		} else {
			x.Near = append(x.Near, n)
		}
	}
	slices.SortFunc(x.Matches, nearer)
	slices.SortFunc(x.Near, nearer)
	x.Near = x.Near[:min(maxNear, len(x.Near))]
	return x
}

func nearer(a, b Near) int {
	return cmp.Or(cmp.Compare(len(a.Missing), len(b.Missing)), cmp.Compare(a.Entry.ID, b.Entry.ID))
}

// Stats are figures for an operator; those of one moment.
type Stats struct {
	// Entries are all that the agent has.
	Entries int
	// SVIDs are those that are kept and good.
	SVIDs int
	// Pending are the SVIDs that are to be there, and are not yet.
	Pending int
	// Failing are those that could not be had, or renewed, at the last try.
	Failing int
	// Expired are those of Pending that ended before they could be renewed.
	Expired int
	// Streams are the subscriptions, Groups the kinds of caller they are of.
	Streams, Groups int
	// NextExpiry is when the first of the SVIDs ends; zero: there is none.
	NextExpiry time.Time
}

// Stats counts.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{Entries: len(c.records), Groups: len(c.groups)}
	for r := range c.active {
		if r.svid != nil {
			s.SVIDs++
		}
	}
	return s
}
