package registration

import (
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Covers reports whether id lies at or below the prefix that is reserved to t.
func (t Template) Covers(id spiffeid.ID) bool {
	return !t.IsZero() && id.MemberOf(t.td) && below(id.Path(), t.Prefix())
}

// Clashes reports whether t and other, being two different templates, reserve
// IDs of each other. Entries may share one template.
func (t Template) Clashes(other Template) bool {
	return t != other && t.td == other.td && !t.IsZero() &&
		(below(t.Prefix(), other.Prefix()) || below(other.Prefix(), t.Prefix()))
}

// Clash reports whether e and other may not both be: one has a template, and
// the other an ID or a template within what that reserves.
func (e Entry) Clash(other Entry) bool {
	switch {
	case !e.Template.IsZero() && !other.Template.IsZero():
		return e.Template.Clashes(other.Template)
	case !e.Template.IsZero():
		return e.Template.Covers(other.SPIFFEID)
	default:
		return other.Template.Covers(e.SPIFFEID)
	}
}

// Name is the SPIFFE ID of e, or its template, for people and keys.
func (e Entry) Name() string {
	if !e.Template.IsZero() {
		return e.Template.String()
	}
	return e.SPIFFEID.String()
}

// below reports whether path is prefix or lies below it.
func below(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}
