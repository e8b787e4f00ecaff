package svidcache

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// An entry with an ID template is a record that never has an SVID itself: callers that match it are given an instance, a record
// whose SPIFFE ID is made from their selectors. The issuer knows an instance by the template's entry ID and the path.

// instanceID is what the issuer knows the SVIDs of an instance by; the separator is in no entry ID and in no path.
func instanceID(entryID, path string) string { return entryID + "~" + path }

func (r *record) isTemplate() bool { return !r.entry.Template.IsZero() }

// expand returns the records that callers with the selectors are given for r: r itself, or its instance; nil where a template
// can't be filled from them.
func (c *Cache) expand(r *record, selectors []registration.Selector) *record {
	if !r.isTemplate() {
		return r
	}
	id, err := r.entry.Template.Instance(selectors)
	if err != nil {
		c.log.Debug("ID template gives this caller no identity", "entry_id", r.entry.ID, "template", r.entry.Template, "reason", err)
		return nil
	}
	if known := r.instances[id]; known != nil {
		return known
	}
	entry := r.entry
	entry.ID, entry.SPIFFEID, entry.Template = instanceID(r.entry.ID, id.Path()), id, registration.Template{}
	return &record{entry: entry, template: r, sets: make(map[*set]struct{})}
}

// file puts r into s. An instance is known to its template from then on.
func (s *set) file(r *record) {
	r.sets[s] = struct{}{}
	if r.template == nil {
		return
	}
	if r.template.instances == nil {
		r.template.instances = make(map[spiffeid.ID]*record)
	}
	r.template.instances[r.entry.SPIFFEID] = r
}

// release forgets an instance that no set has: nobody knows whether its like will come again.
func (c *Cache) release(r *record) {
	if r.template == nil || len(r.sets) > 0 {
		return
	}
	delete(c.active, r)
	if r.template.instances[r.entry.SPIFFEID] == r {
		delete(r.template.instances, r.entry.SPIFFEID)
	}
}

// holds reports whether r is still one of the agent's.
func (c *Cache) holds(r *record) bool {
	if r.template != nil {
		return c.records[r.template.entry.ID] == r.template && r.template.instances[r.entry.SPIFFEID] == r
	}
	return c.records[r.entry.ID] == r
}
