package policy

import (
	"regexp"
	"strings"
	"testing"
)

func TestPattern(t *testing.T) {
	tests := []struct {
		pattern string
		yes, no []string
	}{
		{"spiffe://td/**", []string{"spiffe://td", "spiffe://td/", "spiffe://td/a", "spiffe://td/a/b/"}, []string{"spiffe://tdx", "spiffe://tdx/a", "spiffe:/td/a"}},
		{"spiffe://td/*", []string{"spiffe://td/a", "spiffe://td/a/"}, []string{"spiffe://td", "spiffe://td/", "spiffe://td/a/b"}},
		{"spiffe://td/*/web", []string{"spiffe://td/a/web", "spiffe://td/a/web/"}, []string{"spiffe://td//web", "spiffe://td/a/b/web", "spiffe://td/a/webx"}},
		{"spiffe://td/a", []string{"spiffe://td/a", "spiffe://td/a/"}, []string{"spiffe://td/A", "spiffe://td/a/b", "spiffe://td/a//"}},
		{"spiffe://td/a/", []string{"spiffe://td/a", "spiffe://td/a/"}, []string{"spiffe://td/a//"}},
		{"spiffe://td/a.b", []string{"spiffe://td/a.b"}, []string{"spiffe://td/axb"}},
		{"spiffe://*/a", []string{"spiffe://one/a", "spiffe://two/a"}, []string{"spiffe:///a"}},
		{"spiffe://td/*/**", []string{"spiffe://td/a", "spiffe://td/a/b/c"}, []string{"spiffe://td", "spiffe://td/"}},
		{"**", []string{"", "/", "spiffe://td/a"}, nil},
		{"**/", []string{"", "spiffe://td/a"}, nil},
		{"*", []string{"a", "a/"}, []string{"", "a/b", "/"}},
		{"/", []string{"/", "//"}, []string{"", "a"}},
	}
	for _, tt := range tests {
		p, err := parsePattern(tt.pattern)
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		for _, uri := range tt.yes {
			if !p.matches(uri) {
				t.Errorf("%q does not match %q", tt.pattern, uri)
			}
		}
		for _, uri := range tt.no {
			if p.matches(uri) {
				t.Errorf("%q matches %q", tt.pattern, uri)
			}
		}
	}
}

func TestPatternErrors(t *testing.T) {
	for s, want := range map[string]error{"": errEmpty, "spiffe://td/b*": errStar, "spiffe://td/*b": errStar, "spiffe://td/***": errStar,
		"spiffe://td/**/b": errDoubleStar, "**/a": errDoubleStar, "a**": errStar} {
		if _, err := parsePattern(s); err != want {
			t.Errorf("%q: %v, want %v", s, err, want)
		}
	}
}

// reference is the meaning of a pattern as ghostunnel defines it: a regular
// expression.
func reference(t *testing.T, pattern string) *regexp.Regexp {
	if len(pattern) > 1 {
		pattern = strings.TrimSuffix(pattern, "/")
	}
	if pattern == "**" {
		return regexp.MustCompile(`(?s)^.*$`)
	}
	var re strings.Builder
	re.WriteString("(?s)^")
	segments := strings.Split(pattern, "/")
	for i, seg := range segments {
		switch {
		case seg == "*":
			re.WriteString("[^/]+/")
		case seg == "**":
			re.WriteString("?(|/.*)$")
			return regexp.MustCompile(re.String())
		default:
			re.WriteString(regexp.QuoteMeta(seg) + "/")
		}
		if i == len(segments)-1 {
			re.WriteString("?$")
		}
	}
	return regexp.MustCompile(re.String())
}

func FuzzPattern(f *testing.F) {
	for _, s := range [][2]string{{"spiffe://td/**", "spiffe://td/a"}, {"a/*/c", "a/b/c/"}, {"*", "/"}, {"**", ""}, {"/", "//"}, {"a//", "a//"}, {"*/**", "a"}, {"/**", ""}, {"/**", "/"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, text, uri string) {
		p, err := parsePattern(text)
		if err != nil {
			if text != "" && !strings.Contains(text, "*") {
				t.Fatalf("%q without a star refused: %v", text, err)
			}
			return
		}
		// A regexp reads invalid UTF-8 as U+FFFD; SPIFFE IDs have none of either.
		if strings.ToValidUTF8(text, "") != text || strings.ToValidUTF8(uri, "") != uri {
			return
		}
		if got, want := p.matches(uri), reference(t, text).MatchString(uri); got != want {
			t.Fatalf("pattern %q on %q: %v, want %v", text, uri, got, want)
		}
	})
}
