package svidcache

import "time"

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

// Stats tells the figures. It costs the same however many entries there are.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{
		Entries: len(c.records), SVIDs: len(c.expiries.list),
		Pending: c.figures.pending, Failing: c.figures.failing, Expired: c.figures.expired,
		Streams: c.figures.streams, Groups: len(c.groups),
	}
	if r := c.expiries.first(); r != nil {
		s.NextExpiry = r.live.svid.notAfter
	}
	return s
}
