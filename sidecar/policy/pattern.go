package policy

import (
	"errors"
	"slices"
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
	prefix   string   // what every URI that matches begins with
	suffix   string   // and ends in, but for a slash
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
	if last := len(p.segments) - 1; !p.open && p.segments[last] != "*" {
		p.suffix = p.segments[last]
	}
	p.prefix = strings.Join(p.segments, "/")
	if star := slices.Index(p.segments, "*"); star >= 0 {
		p.prefix = strings.Join(append(slices.Clone(p.segments[:star]), ""), "/")
	}
	return p, nil
}

// matches reports whether uri matches. Its time is linear in the URI's length.
func (p pattern) matches(uri string) bool {
	trimmed, had := strings.CutSuffix(uri, "/")
	if !strings.HasPrefix(uri, p.prefix) || !strings.HasSuffix(trimmed, p.suffix) {
		return false // most patterns of a long list
	}
	return p.matchesExactly(uri) || had && p.matchesExactly(trimmed)
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

// agrees returns how many bytes at the start of uri the pattern has nothing against.
func (p pattern) agrees(uri string) int {
	if !strings.HasPrefix(uri, p.prefix) {
		return common(p.prefix, uri)
	}
	at, more := 0, true
	for _, seg := range p.segments {
		if !more {
			return len(uri)
		}
		var got string
		got, _, more = strings.Cut(uri[at:], "/")
		if seg == "*" && got != "" {
			seg = got
		}
		if seg != got {
			return at + common(seg, got)
		}
		if at += len(got); more {
			at++
		}
	}
	if p.open {
		return len(uri)
	}
	return at
}

// common is the length of what a and b both begin with.
func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// Where the parts of spiffe://TRUST-DOMAIN/PATH are among the segments.
const (
	trustDomainSegment = 2
	pathSegment        = 3
)

// wide reports whether the pattern leaves the trust domain open, as ** and spiffe://*/web do.
func (p pattern) wide() bool {
	if p.open && len(p.segments) <= trustDomainSegment {
		return true
	}
	return slices.Contains(p.segments[:min(len(p.segments), pathSegment)], "*")
}
