// Package registration owns what a registration entry is: its fields, its
// selectors, when a set of selectors matches it, and which entries are valid.
// It does not store entries or decide which agent may have them.
package registration

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Selector is one property of a workload or node, such as unix:uid:1000. It is
// comparable and immutable.
type Selector struct {
	// Type names the attestor and has no colon.
	Type string
	// Value is opaque and may hold colons.
	Value string
}

// ParseSelector reads "type:value", split at the first colon.
func ParseSelector(s string) (Selector, error) {
	typ, value, found := strings.Cut(s, ":")
	if !found {
		return Selector{}, fmt.Errorf("selector %q: want type:value, such as unix:uid:1000", s)
	}
	sel := Selector{Type: typ, Value: value}
	if err := sel.validate(); err != nil {
		return Selector{}, fmt.Errorf("selector %q: %w", s, err)
	}
	return sel, nil
}

func (s Selector) validate() error {
	switch {
	case s.Type == "":
		return errors.New("the type is empty")
	case strings.Contains(s.Type, ":"):
		return errors.New("the type has a colon")
	case s.Value == "":
		return errors.New("the value is empty")
	}
	return nil
}

// String returns "type:value".
func (s Selector) String() string { return s.Type + ":" + s.Value }

func compareSelectors(a, b Selector) int {
	if order := strings.Compare(a.Type, b.Type); order != 0 {
		return order
	}
	return strings.Compare(a.Value, b.Value)
}

// SortedSelectors returns the selectors ordered and each once: sel itself, if
// it is so already.
func SortedSelectors(sel []Selector) []Selector {
	if slices.IsSortedFunc(sel, compareSelectors) && !hasTwins(sel) {
		return sel
	}
	return SortSelectors(sel)
}

// SortSelectors returns a new slice with the selectors ordered and each once.
func SortSelectors(sel []Selector) []Selector {
	sorted := slices.Clone(sel)
	slices.SortFunc(sorted, compareSelectors)
	return slices.Compact(sorted)
}

// hasTwins reports whether sorted selectors have one twice.
func hasTwins(sorted []Selector) bool {
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			return true
		}
	}
	return false
}

// SelectorSet is a set of selectors, as attestation found them.
type SelectorSet map[Selector]struct{}

// NewSelectorSet returns the set of sel.
func NewSelectorSet(sel ...Selector) SelectorSet {
	set := make(SelectorSet, len(sel))
	for _, s := range sel {
		set[s] = struct{}{}
	}
	return set
}

// HasAll reports whether every one of sel is in the set. It is true of none, so
// callers must not match entries that have no selectors.
func (s SelectorSet) HasAll(sel []Selector) bool {
	for _, one := range sel {
		if _, ok := s[one]; !ok {
			return false
		}
	}
	return true
}

// Sorted returns the set's members in order.
func (s SelectorSet) Sorted() []Selector {
	sel := make([]Selector, 0, len(s))
	for one := range s {
		sel = append(sel, one)
	}
	slices.SortFunc(sel, compareSelectors)
	return sel
}
