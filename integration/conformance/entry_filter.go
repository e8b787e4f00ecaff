package conformance

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func entryFilterChecks() []Check {
	return []Check{
		{"entry/filter by selectors", filterSelectors},
		{"entry/filter by federated domains", filterFederated},
		{"entry/filter by fields", filterFields},
	}
}

// names are the hints of the entries that match: the checks name theirs so.
func (c *C) names(f *entryFilter) string {
	c.Helper()
	var hints []string
	for _, e := range c.matching(f) {
		hints = append(hints, e.Hint)
	}
	slices.Sort(hints)
	return strings.Join(hints, " ")
}

// filterSelectors tries every match on every set.
func filterSelectors(c *C) {
	parent := c.pid("/" + c.unique("filtered"))
	for _, set := range []string{"a", "ab", "abc", "d"} {
		e := c.child(parent)
		e.Hint, e.Selectors = set, selectorSet(set)
		c.entry(e)
	}
	for _, row := range []struct {
		match types.SelectorMatch_MatchBehavior
		set   string
		want  string
	}{
		{types.SelectorMatch_MATCH_EXACT, "a", "a"},
		{types.SelectorMatch_MATCH_EXACT, "ba", "ab"},
		{types.SelectorMatch_MATCH_EXACT, "aab", "ab"},
		{types.SelectorMatch_MATCH_EXACT, "bc", ""},
		{types.SelectorMatch_MATCH_SUBSET, "a", "a"},
		{types.SelectorMatch_MATCH_SUBSET, "ab", "a ab"},
		{types.SelectorMatch_MATCH_SUBSET, "cbad", "a ab abc d"},
		{types.SelectorMatch_MATCH_SUBSET, "b", ""},
		{types.SelectorMatch_MATCH_SUPERSET, "a", "a ab abc"},
		{types.SelectorMatch_MATCH_SUPERSET, "bc", "abc"},
		{types.SelectorMatch_MATCH_SUPERSET, "ad", ""},
		{types.SelectorMatch_MATCH_ANY, "b", "ab abc"},
		{types.SelectorMatch_MATCH_ANY, "cd", "abc d"},
		{types.SelectorMatch_MATCH_ANY, "e", ""},
	} {
		got := c.names(&entryFilter{ByParentId: parent, BySelectors: &types.SelectorMatch{Match: row.match, Selectors: selectorSet(row.set)}})
		c.equal(row.match.String()+" "+row.set, got, row.want)
	}
}

// selectorSet is a selector for each letter.
func selectorSet(letters string) []*types.Selector {
	set := []*types.Selector{}
	for _, letter := range letters {
		set = append(set, &types.Selector{Type: "set", Value: string(letter)})
	}
	return set
}

func filterFederated(c *C) {
	parent, domains := c.pid("/"+c.unique("federating")), map[rune]string{}
	for _, letter := range "abcd" {
		domains[letter] = c.unique("domain") + ".test"
		c.federate(domains[letter])
	}
	set := func(letters string) []string {
		var all []string
		for _, letter := range letters {
			all = append(all, domains[letter])
		}
		return all
	}
	for _, letters := range []string{"", "a", "ab", "abc"} {
		e := c.child(parent)
		e.Hint, e.FederatesWith = "="+letters, set(letters)
		c.entry(e)
	}
	for _, row := range []struct {
		match types.FederatesWithMatch_MatchBehavior
		set   string
		want  string
	}{
		{types.FederatesWithMatch_MATCH_EXACT, "ba", "=ab"},
		{types.FederatesWithMatch_MATCH_EXACT, "d", ""},
		{types.FederatesWithMatch_MATCH_SUBSET, "ab", "=a =ab"},
		{types.FederatesWithMatch_MATCH_SUBSET, "d", ""},
		{types.FederatesWithMatch_MATCH_SUPERSET, "a", "=a =ab =abc"},
		{types.FederatesWithMatch_MATCH_SUPERSET, "cb", "=abc"},
		{types.FederatesWithMatch_MATCH_ANY, "bd", "=ab =abc"},
		{types.FederatesWithMatch_MATCH_ANY, "d", ""},
	} {
		got := c.names(&entryFilter{ByParentId: parent, ByFederatesWith: &types.FederatesWithMatch{Match: row.match, TrustDomains: set(row.set)}})
		c.equal(row.match.String()+" "+row.set, got, row.want)
	}
}

// filterFields tries the other filters, and all together.
func filterFields(c *C) {
	parent, id := c.pid("/"+c.unique("fielded")), c.pid("/"+c.unique("fielded"))
	for _, hint := range []string{"plain", "down", "id"} {
		e := c.child(parent)
		e.Hint, e.Downstream = hint, hint == "down"
		if hint == "id" {
			e.SpiffeId, e.Selectors = id, selectorSet("a")
		}
		c.entry(e)
	}
	for _, row := range []struct {
		f    *entryFilter
		want string
	}{
		{&entryFilter{}, "down id plain"},
		{&entryFilter{ByHint: wrapperspb.String("down")}, "down"},
		{&entryFilter{ByHint: wrapperspb.String("")}, "down id plain"},
		{&entryFilter{ByDownstream: wrapperspb.Bool(true)}, "down"},
		// SPIRE's command line sends this where it wants all.
		{&entryFilter{ByDownstream: wrapperspb.Bool(false)}, "down id plain"},
		{&entryFilter{BySpiffeId: id}, "id"},
		{&entryFilter{BySpiffeId: id, ByDownstream: wrapperspb.Bool(true)}, ""},
		{&entryFilter{BySpiffeId: id, ByHint: wrapperspb.String("id"), BySelectors: &types.SelectorMatch{Selectors: selectorSet("a")}}, "id"},
	} {
		row.f.ByParentId = parent
		c.equal(row.f.String(), c.names(row.f), row.want)
	}
}
