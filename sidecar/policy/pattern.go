package policy

import (
	"errors"
	"strings"
)

// pattern matches URIs segment by segment, with ghostunnel's meaning: segments
// are what lies between slashes, compared byte by byte. A segment "*" stands for
// one or more bytes other than a slash. A last segment "**" stands for anything,
// nothing included, along with the slash before it; "**" alone matches
// everything. One slash at the end is ignored, on both sides.
type pattern struct {
	text     string   // as written
	segments []string // without a last "**"
	open     bool     // ended in "**"
}

var (
	errEmpty      = errors.New("empty pattern: give one such as spiffe://TRUST-DOMAIN/**")
	errStar       = errors.New("* must be a whole segment between slashes")
	errDoubleStar = errors.New("** must be the last segment")
)

func parsePattern(s string) (pattern, error) {
	if s == "" {
		return pattern{}, errEmpty
	}
	p := pattern{text: s}
	if len(s) > 1 {
		s = strings.TrimSuffix(s, "/")
	}
	p.segments = strings.Split(s, "/")
	if last := len(p.segments) - 1; p.segments[last] == "**" {
		p.segments, p.open = p.segments[:last], true
	}
	for _, seg := range p.segments {
		switch {
		case seg == "*":
		case seg == "**":
			return pattern{}, errDoubleStar
		case strings.Contains(seg, "*"):
			return pattern{}, errStar
		}
	}
	return p, nil
}

// matches reports whether uri matches. Its time is linear in the URI's length.
func (p pattern) matches(uri string) bool {
	if p.matchesExactly(uri) {
		return true
	}
	trimmed, had := strings.CutSuffix(uri, "/")
	return had && p.matchesExactly(trimmed)
}

func (p pattern) matchesExactly(uri string) bool {
	rest, more := uri, true
	for _, seg := range p.segments {
		if !more {
			return false
		}
		var got string
		got, rest, more = strings.Cut(rest, "/")
		if seg == "*" && got == "" || seg != "*" && seg != got {
			return false
		}
	}
	return p.open || !more
}
