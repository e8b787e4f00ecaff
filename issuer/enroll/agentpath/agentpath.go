// Package agentpath owns agent_path_template: the paths of agents' SPIFFE IDs,
// made from what a method of node attestation found, as in SPIRE. It does not
// know the methods.
package agentpath

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"unicode"

	sprig "github.com/go-task/slim-sprig/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Template makes paths below /spire/agent.
type Template struct{ tmpl *template.Template }

// Parse reads a template (text/template) that may call the functions that SPIRE
// lets it call, those of sprig that read nothing of the machine. The few
// that are missing are named as such. A key that is not there is an error, and not "<no value>".
func Parse(text string) (*Template, error) {
	tmpl, err := template.New("agent_path_template").Option("missingkey=error").Funcs(functions()).Parse(text)
	if err == nil {
		return &Template{tmpl}, nil
	}
	if m := undefined.FindStringSubmatch(err.Error()); m != nil && slices.Contains(missing(), m[1]) {
		return nil, fmt.Errorf("agent_path_template %q: function %q is known to SPIRE, not supported yet", text, m[1])
	}
	return nil, fmt.Errorf("agent_path_template %q: %w", text, err)
}

var undefined = regexp.MustCompile(`function "(\w+)" not defined`)

// AgentID returns the ID that the template makes of data.
func (t *Template) AgentID(td spiffeid.TrustDomain, data any) (spiffeid.ID, error) {
	var path strings.Builder
	if err := t.tmpl.Execute(&path, data); err != nil {
		return spiffeid.ID{}, fmt.Errorf("agent_path_template: %w", err)
	}
	if !strings.HasPrefix(path.String(), "/") {
		return spiffeid.ID{}, fmt.Errorf("agent_path_template makes %q: it must begin with /", path.String())
	}
	id, err := spiffeid.FromPath(td, "/spire/agent"+path.String())
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("agent_path_template makes %q: %w", path.String(), err)
	}
	return id, nil
}

// functions returns what templates may call.
func functions() template.FuncMap {
	all, allowed := sprig.TxtFuncMap(), template.FuncMap{"nospace": nospace}
	for _, name := range strings.Fields(names) {
		if f, ok := all[name]; ok {
			allowed[name] = f
		}
	}
	return allowed
}

// missing returns SPIRE's functions that are not there.
func missing() []string {
	have := functions()
	return slices.DeleteFunc(strings.Fields(names), func(name string) bool { return have[name] != nil })
}

// names are the functions that SPIRE documents (doc/template_engine.md).
const names = `abbrev abbrevboth trunc trim upper lower title untitle substr repeat trimAll trimSuffix trimPrefix nospace
initials swapcase snakecase camelcase kebabcase wrap wrapWith contains hasPrefix hasSuffix quote squote cat indent nindent
replace plural sha1sum sha256sum adler32sum toString seq splitList toStrings join sortAlpha default empty coalesce all any
compact mustCompact ternary base dir clean ext isAbs b64enc b64dec b32enc b32dec tuple list dict get set unset hasKey pluck
keys pick omit merge mergeOverwrite mustMerge mustMergeOverwrite values append push mustAppend mustPush prepend mustPrepend
first mustFirst rest mustRest last mustLast initial mustInitial reverse mustReverse uniq mustUniq without mustWithout has
mustHas slice mustSlice concat dig chunk mustChunk uuidv4 fail regexMatch mustRegexMatch regexFindAll mustRegexFindAll
regexFind mustRegexFind regexReplaceAll mustRegexReplaceAll regexReplaceAllLiteral mustRegexReplaceAllLiteral regexSplit
mustRegexSplit regexQuoteMeta urlParse urlJoin`

func nospace(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
}
