package registration

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Template is a SPIFFE ID whose path has holes, to be filled from a workload's
// selectors: "/docker/{{docker:label:app}}" makes "/docker/web" for a workload
// with the selector docker:label:app:web. A hole is a whole segment of the
// path, and the first segment is none. It is comparable; the zero Template is
// none.
type Template struct {
	td   spiffeid.TrustDomain
	path string
}

const (
	// maxIDBytes bounds a SPIFFE ID (SPIFFE-ID, section 2.3).
	maxIDBytes = 2048
	// maxHoles bounds the work of filling one template.
	maxHoles = 16

	holeOpen, holeClose = "{{", "}}"
)

// ParseTemplate reads the path of a template.
func ParseTemplate(td spiffeid.TrustDomain, path string) (Template, error) {
	if err := validateTemplate(td, path); err != nil {
		return Template{}, fmt.Errorf("ID template %q: %w", path, err)
	}
	return Template{td: td, path: path}, nil
}

func validateTemplate(td spiffeid.TrustDomain, path string) error {
	if td.IsZero() {
		return errors.New("has no trust domain")
	}
	if len(td.IDString())+len(path) > maxIDBytes {
		return fmt.Errorf("longer than %d bytes", maxIDBytes)
	}
	if !strings.HasPrefix(path, "/") {
		return errors.New("must begin with a slash")
	}
	holes := 0
	for first, rest := true, path; rest != ""; first = false {
		var segment segment
		var err error
		if segment, rest, err = nextSegment(rest); err != nil {
			return err
		}
		switch {
		case !segment.hole:
		case first:
			return errors.New("must begin with a literal segment, which is reserved to it")
		default:
			holes++
		}
	}
	switch {
	case holes == 0:
		return errors.New("has no hole, such as {{unix:user}}")
	case holes > maxHoles:
		return fmt.Errorf("has %d holes, at most %d", holes, maxHoles)
	}
	return nil
}

// segment is one segment of a template's path: text, or what fills the hole.
type segment struct {
	hole bool
	// text is the literal text, or the beginning of the values of the selectors
	// that fill the hole, up to their last colon.
	text string
	// typ is the type of those selectors.
	typ string
}

// nextSegment reads the segment at the beginning of path, which is not empty.
func nextSegment(path string) (s segment, rest string, err error) {
	if path[0] != '/' {
		return s, "", fmt.Errorf("%q follows a hole: a hole is a whole segment of the path", path)
	}
	path = path[1:]
	if hole, ok := strings.CutPrefix(path, holeOpen); ok {
		// A selector may have slashes: {{k8s:pod-label:app.kubernetes.io/name}}.
		key, rest, ok := strings.Cut(hole, holeClose)
		if !ok {
			return s, "", errors.New("has a hole that does not end")
		}
		typ, text, err := parseHole(key)
		return segment{hole: true, typ: typ, text: text}, rest, err
	}
	text, _, _ := strings.Cut(path, "/")
	if err := spiffeid.ValidatePathSegment(text); err != nil {
		return s, "", fmt.Errorf("segment %q: %w", text, err)
	}
	return segment{text: text}, path[len(text):], nil
}

// parseHole reads "docker:label:app": the type of a selector, and what comes
// before the last colon of its value.
func parseHole(key string) (typ, text string, err error) {
	for _, c := range []byte(key) {
		if c <= ' ' || c >= 0x7f || c == '{' || c == '}' {
			return "", "", fmt.Errorf("hole %q: only printable ASCII without spaces and braces", key)
		}
	}
	typ, text, _ = strings.Cut(key, ":")
	if typ == "" || text == "" || strings.HasSuffix(text, ":") {
		return "", "", fmt.Errorf("hole %q: want a selector without its last part, such as unix:user or docker:label:app", key)
	}
	return typ, text + ":", nil
}

// IsZero reports whether t is no template.
func (t Template) IsZero() bool { return t == Template{} }

// Equal is ==, for those who compare with methods.
func (t Template) Equal(other Template) bool { return t == other }

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
func (t Template) Prefix() string {
	before, _, _ := strings.Cut(t.path, "/"+holeOpen)
	return before
}

// Instance fills the holes from a workload's selectors. It is an error where a
// value is missing, there is more than one, or it is not exactly one segment of
// a path: whoever can choose a label must not choose where in the tree of IDs
// its workload is.
func (t Template) Instance(selectors []Selector) (spiffeid.ID, error) {
	return t.instance(func(s segment) (string, error) {
		value, found := "", false
		for _, sel := range selectors {
			v, ok := strings.CutPrefix(sel.Value, s.text)
			if sel.Type != s.typ || !ok {
				continue
			}
			if found && v != value {
				return "", fmt.Errorf("selectors %s:%s have more than one value", s.typ, s.text)
			}
			value, found = v, true
		}
		if !found {
			return "", fmt.Errorf("no selector %s:%s", s.typ, s.text)
		}
		return value, nil
	})
}

// InstanceAt returns the ID at path if that is an instance of the template.
func (t Template) InstanceAt(path string) (spiffeid.ID, error) {
	rest := path
	values := make(map[segment]string)
	id, err := t.instance(func(s segment) (string, error) {
		value, err := cutSegment(&rest)
		if was, ok := values[s]; ok && was != value {
			return "", fmt.Errorf("%q and %q fill the same hole", was, value)
		}
		values[s] = value
		return value, err
	}, func(literal string) error {
		text, err := cutSegment(&rest)
		if err == nil && text != literal {
			err = fmt.Errorf("has %q where the template has %q", text, literal)
		}
		return err
	})
	if err == nil && rest != "" {
		err = fmt.Errorf("has %q more than the template", rest)
	}
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("path %.256q is no instance of %s: %w", path, t, err)
	}
	return id, nil
}

// cutSegment takes the first segment off the path.
func cutSegment(path *string) (string, error) {
	rest, ok := strings.CutPrefix(*path, "/")
	if !ok {
		return "", errors.New("ends too early")
	}
	text, _, _ := strings.Cut(rest, "/")
	*path = rest[len(text):]
	return text, nil
}

// instance makes the ID with what fill says of each hole. literals are told of
// each literal segment on the way.
func (t Template) instance(fill func(segment) (string, error), literals ...func(string) error) (spiffeid.ID, error) {
	if t.IsZero() {
		return spiffeid.ID{}, errors.New("no ID template")
	}
	var path strings.Builder
	for rest := t.path; rest != ""; {
		var s segment
		var err error
		if s, rest, err = nextSegment(rest); err != nil {
			return spiffeid.ID{}, err
		}
		text := s.text
		if s.hole {
			if text, err = fill(s); err != nil {
				return spiffeid.ID{}, err
			}
			if err := spiffeid.ValidatePathSegment(text); err != nil {
				return spiffeid.ID{}, fmt.Errorf("%.256q for {{%s:%s}}: %w", text, s.typ, strings.TrimSuffix(s.text, ":"), err)
			}
		} else {
			for _, tell := range literals {
				if err := tell(text); err != nil {
					return spiffeid.ID{}, err
				}
			}
		}
		path.WriteByte('/')
		path.WriteString(text)
	}
	if n := len(t.td.IDString()) + path.Len(); n > maxIDBytes {
		return spiffeid.ID{}, fmt.Errorf("the SPIFFE ID has %d bytes, at most %d", n, maxIDBytes)
	}
	return spiffeid.FromPath(t.td, path.String())
}
