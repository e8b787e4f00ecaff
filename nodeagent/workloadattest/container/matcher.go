package container

import (
	"fmt"
	"strings"
)

// Finder finds containers by patterns of cgroup paths.
type Finder struct{ patterns [][]string }

// The words of a pattern: any component, and the one that is the ID.
const (
	anyWord = "*"
	idWord  = "<id>"
)

// NewFinder returns a finder by SPIRE's container_id_cgroup_matchers: paths such
// as /docker/<id> or /my.slice/*/<id>/*, in which * is any component and <id>, once
// in each, the container's ID. No two may match the same path. Without patterns
// it finds what [Find] does.
func NewFinder(patterns []string) (*Finder, error) {
	f := &Finder{}
	for i, p := range patterns {
		if !strings.HasPrefix(p, "/") || strings.Count(p, idWord) != 1 {
			return nil, fmt.Errorf("container_id_cgroup_matchers: %q: want a path with one %s, such as /docker/%s", p, idWord, idWord)
		}
		words := strings.Split(p, "/")
		for _, w := range words {
			if w != idWord && strings.Contains(w, idWord) {
				return nil, fmt.Errorf("container_id_cgroup_matchers: %q: %s must be a whole component", p, idWord)
			}
		}
		for j, other := range f.patterns {
			if overlap(words, other) {
				return nil, fmt.Errorf("container_id_cgroup_matchers: %q and %q can match the same path: leave one out", patterns[j], patterns[i])
			}
		}
		f.patterns = append(f.patterns, words)
	}
	return f, nil
}

// overlap reports whether a path could match both.
func overlap(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if wild := a[i] == anyWord || b[i] == anyWord || a[i] == idWord || b[i] == idWord; !wild && a[i] != b[i] {
			return false
		}
	}
	return true
}

// Find is [Find] by the finder's patterns.
func (f *Finder) Find(cgroup []byte) (Container, bool, error) {
	if len(f.patterns) == 0 {
		return Find(cgroup)
	}
	return find(cgroup, f.match)
}

func (f *Finder) match(path string) (Container, bool) {
	names := strings.Split(path, "/")
	for _, words := range f.patterns {
		if at := matchAt(words, names); at >= 0 {
			upTo := strings.Join(names[:at+1], "/")
			return Container{ID: names[at], PodUID: podUID(upTo), Path: upTo}, true
		}
	}
	return Container{}, false
}

// matchAt returns which component is the ID; -1: it does not match.
func matchAt(words, names []string) int {
	if len(words) != len(names) {
		return -1
	}
	at := -1
	for i, w := range words {
		switch {
		case w == idWord:
			if len(names[i]) != idLength || !isHex(names[i]) {
				return -1
			}
			at = i
		case w != anyWord && w != names[i]:
			return -1
		}
	}
	return at
}
