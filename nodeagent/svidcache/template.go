package svidcache

import (
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// An entry with an ID template is a record that never has an SVID itself: callers that match it are given an instance, a record
// whose SPIFFE ID is made from their selectors. The issuer knows an instance by the template's entry ID and the path.

// instanceID is what the issuer knows the SVIDs of an instance by; the separator is in no entry ID and in no path.
func instanceID(entryID, path string) string { return entryID + instanceMark + path }

const instanceMark = "~"

// instance is what a template says of its instance with the SPIFFE ID.
func (f *fields) instance(id spiffeid.ID) *fields {
	one, more := *f, *f.rest
	more.template = registration.Template{}
	one.id, one.spiffeID, one.rest = instanceID(f.id, id.Path()), id, &more
	return &one
}

// expand returns the records that callers with the selectors are given for r: r itself, or its instance; nil where a template
// can't be filled from them.
func (c *Cache) expand(r *record, selectors []registration.Selector) *record {
	if !r.isTemplate() {
		return r
	}
	id, err := r.more().template.Instance(selectors)
	if err != nil {
		c.log.Debug("ID template gives this caller no identity", "entry_id", r.id, "template", r.more().template, "reason", err)
		return nil
	}
	if r.live != nil {
		if known := r.live.instances[id]; known != nil {
			return known
		}
	}
	one := &record{fields: r.fields.instance(id), live: &live{template: r}}
	if s := c.spare[one.id]; s != nil && s.id == id {
		one.live.svid = s
	}
	return one
}

// file puts r into s. An instance is known to its template from then on.
func (c *Cache) file(s *set, r *record) {
	l := r.living()
	l.sets = append(l.sets, s)
	if l.template != nil {
		t := l.template.living()
		if t.instances == nil {
			t.instances = make(map[spiffeid.ID]*record)
		}
		t.instances[r.spiffeID] = r
		delete(c.spare, r.id)
	}
	c.place(r)
}

// release forgets an instance that no set has: nobody knows whether its like will come again.
func (c *Cache) release(r *record) {
	if !r.isInstance() || len(r.live.sets) > 0 {
		return
	}
	c.forget(r)
}

// forget takes an instance from its template.
func (c *Cache) forget(r *record) {
	t := r.live.template
	if t.live != nil && t.live.instances[r.spiffeID] == r {
		delete(t.live.instances, r.spiffeID)
		c.place(t)
	}
	r.gone = true
	c.place(r)
}

// dropSpare is for a template that changes: its instances' SVIDs that were kept
// may say what it no longer does.
func (c *Cache) dropSpare(r *record) {
	for id := range c.spare {
		if name, _, _ := strings.Cut(id, instanceMark); name == r.id {
			delete(c.spare, id)
		}
	}
}

// dropInstances is for a template that is gone, or makes other IDs now.
func (c *Cache) dropInstances(r *record) {
	c.dropSpare(r)
	if r.live == nil {
		return
	}
	for _, one := range r.live.instances {
		one.gone = true
		c.place(one)
	}
	r.live.instances = nil
	c.place(r)
}

// instances returns those of a template, in order.
func (r *record) instances() []*record {
	if r.live == nil {
		return nil
	}
	var all []*record
	for _, one := range r.live.instances {
		all = append(all, one)
	}
	slices.SortFunc(all, byID)
	return all
}
