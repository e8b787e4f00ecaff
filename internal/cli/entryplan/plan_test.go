package entryplan

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/cli/entryfile"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func entry(path, selector string) *types.Entry {
	return &types.Entry{
		SpiffeId: &types.SPIFFEID{TrustDomain: "td", Path: path}, ParentId: &types.SPIFFEID{TrustDomain: "td", Path: "/n"},
		Selectors: []*types.Selector{{Type: "unix", Value: selector}},
	}
}

func named(name string, e *types.Entry) entryfile.Declared {
	return entryfile.Declared{Name: name, Entry: e}
}

func with(id string, e *types.Entry) *types.Entry {
	e.Id = id
	return e
}

// summary writes a plan so that it can be compared.
func summary(p Plan) []string {
	var lines []string
	for _, c := range p.Changes {
		line := string(c.Action) + " " + c.Entry.SpiffeId.Path
		for _, f := range c.Fields {
			line += " " + f.Name
		}
		lines = append(lines, line)
	}
	return lines
}

func TestMake(t *testing.T) {
	a := named("a", entry("/a", "uid:1"))
	idA := ID("s", a)
	longer := func(e *types.Entry) *types.Entry { e = proto.CloneOf(e); e.X509SvidTtl = 60; return e }
	for _, tc := range []struct {
		name                     string
		declared                 []entryfile.Declared
		existing                 []*types.Entry
		o                        Options
		want                     []string
		unchanged, adopted, left int
	}{
		{name: "new", declared: []entryfile.Declared{a}, want: []string{"create /a"}},
		{name: "the same again", declared: []entryfile.Declared{a}, existing: []*types.Entry{with(idA, entry("/a", "uid:1"))}, unchanged: 1},
		{name: "changed", declared: []entryfile.Declared{named("a", longer(a.Entry))}, existing: []*types.Entry{with(idA, entry("/a", "uid:1"))}, want: []string{"update /a x509_svid_ttl"}},
		{name: "a named one gets another ID in its place", declared: []entryfile.Declared{named("a", entry("/b", "uid:1"))}, existing: []*types.Entry{with(idA, entry("/a", "uid:1"))}, want: []string{"update /b spiffe_id"}},
		{name: "one without a name is another one then", declared: []entryfile.Declared{named("", entry("/a", "uid:2"))}, o: Options{Prune: true},
			existing: []*types.Entry{with(ID("s", named("", entry("/a", "uid:1"))), entry("/a", "uid:1"))}, want: []string{"create /a", "delete /a"}},
		{name: "made by hand", declared: []entryfile.Declared{named("a", longer(a.Entry))}, existing: []*types.Entry{with("uuid", entry("/a", "uid:1"))}, want: []string{"update /a x509_svid_ttl"}, adopted: 1},
		{name: "made by hand is not pruned", o: Options{Prune: true}, existing: []*types.Entry{with("uuid", entry("/a", "uid:1")), with("other"+idA[1:], entry("/b", "uid:1")), with("s.ABCDEFABCDEFABCDEFABCDEF", entry("/c", "uid:1"))}},
		{name: "renamed keeps its ID", declared: []entryfile.Declared{named("new", entry("/a", "uid:1"))}, o: Options{Prune: true}, existing: []*types.Entry{with(idA, entry("/a", "uid:1"))}, unchanged: 1},
		{name: "gone, and nobody said prune", existing: []*types.Entry{with(idA, entry("/a", "uid:1"))}, left: 1},
		{name: "gone", o: Options{Prune: true}, existing: []*types.Entry{with(idA, entry("/a", "uid:1"))}, want: []string{"delete /a"}},
		{name: "gone, but out of scope", o: Options{Prune: true, Scopes: []string{"spiffe://td/b"}}, existing: []*types.Entry{with(idA, entry("/a", "uid:1"))}},
		{name: "gone, in scope", o: Options{Prune: true, Scopes: []string{"spiffe://td/b/", "spiffe://td/a"}}, existing: []*types.Entry{with(idA, entry("/a/x", "uid:1"))}, want: []string{"delete /a/x"}},
		{name: "an ID of one's own", declared: []entryfile.Declared{named("", with("mine", entry("/a", "uid:1")))}, existing: []*types.Entry{with("mine", entry("/a", "uid:2"))}, want: []string{"update /a selectors"}, adopted: 1},
	} {
		tc.o.Set = "s"
		p := Make(tc.declared, tc.existing, tc.o)
		if diff := cmp.Diff(tc.want, summary(p)); diff != "" || p.Unchanged != tc.unchanged || p.Adopted != tc.adopted || p.Left != tc.left {
			t.Errorf("%s: %d unchanged, %d adopted, %d left %s", tc.name, p.Unchanged, p.Adopted, p.Left, diff)
		}
	}
}

// FuzzMake holds that what a plan makes needs no second one.
func FuzzMake(f *testing.F) {
	f.Add("a/1/0 b/2/1", "a/1/0 c/1/0", true)
	f.Add("a/1/0 b/1/0", "b/1/5 a/2/5", false)
	f.Fuzz(func(t *testing.T, declared, existing string, prune bool) {
		var d []entryfile.Declared
		keys := map[string]bool{}
		for i, e := range entries(declared) {
			if keys[entryfile.Key(e)] {
				continue // files with two of the same are refused
			}
			keys[entryfile.Key(e)] = true
			name := ""
			if i%2 == 0 {
				name = e.SpiffeId.Path + "#" + e.Selectors[0].Value
			}
			d = append(d, named(name, e))
		}
		have := map[string]*types.Entry{}
		for i, e := range entries(existing) {
			e.Id = ID([]string{"s", "other"}[i%2], named("", e))
			have[e.Id] = e
		}
		o := Options{Set: "s", Prune: prune}
		carryOut(have, Make(d, values(have), o))
		if again := Make(d, values(have), o); len(again.Changes) > 0 {
			t.Fatalf("a second run would: %v", summary(again))
		}
	})
}

// entries reads "PATH/SELECTOR/TTL …".
func entries(text string) []*types.Entry {
	var all []*types.Entry
	for _, word := range strings.Fields(text) {
		part := append(strings.Split(word, "/"), "", "")
		e := entry("/"+part[0], part[1])
		e.X509SvidTtl = int32(len(part[2]))
		all = append(all, e)
	}
	return all
}

func values(m map[string]*types.Entry) []*types.Entry {
	var all []*types.Entry
	for _, e := range m {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *types.Entry) int { return strings.Compare(a.Id, b.Id) })
	return all
}

func carryOut(have map[string]*types.Entry, p Plan) {
	for _, c := range p.Changes {
		if c.Action == Delete {
			delete(have, c.Entry.Id)
			continue
		}
		have[c.Entry.Id] = c.Entry
	}
}
