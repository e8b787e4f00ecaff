package entryfile

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// maxNesting bounds open brackets: the parser recurses.
const maxNesting = 64

// hcl reads entry "name" { … } blocks, the defaults { … } block and the name of the set.
func (r *reader) hcl(data []byte) {
	if line := tooDeep(data); line > 0 {
		r.errorf(line, "more than %d brackets are open here", maxNesting)
		return
	}
	parsed, diags := hclsyntax.ParseConfig(data, r.name, hcl.InitialPos)
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			line := 0
			if d.Subject != nil {
				line = d.Subject.Start.Line
			}
			r.errorf(line, "%s", lowerFirst(strings.TrimSuffix(d.Summary+": "+d.Detail, ".")))
		}
	}
	if diags.HasErrors() {
		return
	}
	body := parsed.Body.(*hclsyntax.Body)
	for _, a := range sorted(body.Attributes) {
		switch a.Name {
		case "set":
			r.text(a, func(s string) { r.file.Set = s })
		default:
			r.errorf(line(a.NameRange), "%s", suggest.Unknown("key", a.Name, []string{"set", "entry", "defaults"}))
		}
	}
	d := r.defaults(body.Blocks)
	for _, b := range body.Blocks {
		switch {
		case b.Type == "defaults":
		case b.Type != "entry":
			r.errorf(line(b.TypeRange), "%s", suggest.Unknown("block", b.Type, []string{"entry", "defaults"}))
		case len(b.Labels) != 1 || b.Labels[0] == "":
			r.errorf(line(b.TypeRange), `an entry has one name: entry "web" { … }`)
		default:
			r.hclEntry(b, d)
		}
	}
}

// defaults is what entries that don't say otherwise have.
type defaults struct {
	entry *types.Entry
	td    string // for IDs written as a path alone
}

func (r *reader) defaults(blocks hclsyntax.Blocks) defaults {
	d := defaults{entry: &types.Entry{}}
	first := 0
	for _, b := range blocks {
		if b.Type != "defaults" {
			continue
		}
		if first > 0 {
			r.errorf(line(b.TypeRange), "defaults stand in line %d already", first)
			continue
		}
		first = line(b.TypeRange)
		r.noBlocks(b, "defaults")
		for _, a := range sorted(b.Body.Attributes) { // trust_domain first: paths need it
			if a.Name == "trust_domain" {
				r.text(a, func(s string) {
					td, err := spiffeid.TrustDomainFromString(s)
					if err != nil {
						r.errorf(line(a.SrcRange), "defaults: trust_domain %q: %v", s, err)
					}
					d.td = td.Name()
				})
			}
		}
		for _, a := range sorted(b.Body.Attributes) {
			if a.Name != "trust_domain" {
				r.field(a, "defaults", d.entry, d.td, defaultKeys())
			}
		}
	}
	return d
}

func (r *reader) hclEntry(b *hclsyntax.Block, d defaults) {
	title := "entry \"" + b.Labels[0] + "\""
	e := &types.Entry{
		ParentId: d.entry.ParentId, X509SvidTtl: d.entry.X509SvidTtl, JwtSvidTtl: d.entry.JwtSvidTtl,
		FederatesWith: d.entry.FederatesWith, Selectors: d.entry.Selectors,
	}
	before := len(r.faults)
	r.noBlocks(b, title)
	for _, a := range sorted(b.Body.Attributes) {
		r.field(a, title, e, d.td, entryKeys())
	}
	at := line(b.TypeRange)
	for _, missing := range []struct {
		is  bool
		key string
	}{{e.SpiffeId == nil, "spiffe_id"}, {e.ParentId == nil, "parent_id"}, {len(e.Selectors) == 0, "selectors"}} {
		if missing.is && b.Body.Attributes[missing.key] == nil {
			r.errorf(at, "%s: %s is missing", title, missing.key)
		}
	}
	if len(r.faults) == before {
		r.file.Entries = append(r.file.Entries, Declared{Name: b.Labels[0], Line: at, Entry: e})
	}
}

func (r *reader) noBlocks(b *hclsyntax.Block, title string) {
	for _, inner := range b.Body.Blocks {
		r.errorf(line(inner.TypeRange), "%s: %s is no block: write %s = …", title, inner.Type, inner.Type)
	}
}

func sorted(attrs hclsyntax.Attributes) []*hclsyntax.Attribute {
	all := make([]*hclsyntax.Attribute, 0, len(attrs))
	for _, a := range attrs {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *hclsyntax.Attribute) int { return a.SrcRange.Start.Byte - b.SrcRange.Start.Byte })
	return all
}

func line(r hcl.Range) int { return r.Start.Line }

// tooDeep gives the line where more brackets than maxNesting are open. It counts those in strings and comments too.
func tooDeep(src []byte) int {
	depth, at := 0, 1
	for _, c := range src {
		switch c {
		case '\n':
			at++
		case '{', '[', '(':
			if depth++; depth > maxNesting {
				return at
			}
		case '}', ']', ')':
			depth = max(depth-1, 0)
		}
	}
	return 0
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
