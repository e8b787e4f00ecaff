package registration

import (
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Template is a SPIFFE ID whose path has holes, to be filled from a workload's
// selectors: "/docker/{{docker:label:app}}". It is comparable; the zero
// Template is none.
type Template struct {
	td   spiffeid.TrustDomain
	path string
}

// ParseTemplate reads the path of a template.
func ParseTemplate(td spiffeid.TrustDomain, path string) (Template, error) {
	return Template{}, errors.New("later")
}

// IsZero reports whether t is no template.
func (t Template) IsZero() bool { return t == Template{} }

// TrustDomain is the one of all instances.
func (t Template) TrustDomain() spiffeid.TrustDomain { return t.td }

// Path is the path with its holes, as it goes over the wire.
func (t Template) Path() string { return t.path }

// String returns "spiffe://td/docker/{{docker:label:app}}"; "" for the zero Template.
func (t Template) String() string {
	if t.IsZero() {
		return ""
	}
	return t.td.IDString() + t.path
}

// Prefix is the path before the first hole, "/docker": what is reserved to the
// template.
func (t Template) Prefix() string { return "" }

// Instance fills the holes from a workload's selectors. It is an error where a
// value is missing, there is more than one, or it is not a path segment.
func (t Template) Instance(selectors []Selector) (spiffeid.ID, error) {
	return spiffeid.ID{}, errors.New("later")
}

// InstanceAt returns the ID at path if that is an instance of the template.
func (t Template) InstanceAt(path string) (spiffeid.ID, error) {
	return spiffeid.ID{}, errors.New("later")
}
