package archtest

import (
	"go/ast"
	"go/token"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// reference is a file whose names a guide explains, and how they are found in it.
type reference struct {
	file  string
	names func(ast.Node) []string
	least int // how many there are: fewer were found by mistake
}

// references are what a guide tells of, by its name.
var references = map[string][]reference{
	"sidecar.md": {
		{"cmd/internal/sidecarcmd/file.go", tags("hcl"), 60},
		{"sidecar/record/cause.go", constantsOf("Cause"), 18},
		{"sidecar/record/log.go", arguments(1, "text", "flag", "String", "Int64", "Duration"), 18},
		{"sidecar/metrics/vectors.go", arguments(0, "counter", "histogram"), 8},
		{"sidecar/metrics/vectors.go", fields("Name"), 2},
		{"sidecar/metrics/identities.go", arguments(1, "desc"), 7},
		{"sidecar/policy/rego/input.go", mapKeys, 9},
		{"sidecar/status/response.go", tags("json"), 38},
	},
	"agent.md": {
		{"cmd/internal/agentcmd/file.go", tags("hcl"), 60},
		{"cmd/internal/agentcmd/file_plugins.go", tags("hcl"), 32},
		{"cmd/internal/agentcmd/flags.go", flagNames, 20},
		{"cmd/internal/spireconf/telemetry.go", tags("hcl"), 22},
		{"cmd/internal/spireconf/plugins.go", tags("hcl"), 6},
		{"nodeagent/metrics/own.go", arguments(0, "counter", "gauge", "histogram"), 7},
		{"nodeagent/metrics/collect.go", arguments(0, "desc"), 14},
	},
}

// code is what a text has in backquotes.
var (
	code   = regexp.MustCompile("`[^`\n]+`")
	blocks = regexp.MustCompile("(?s)\n```.*?\n```")
	words  = regexp.MustCompile(`[A-Za-z0-9_]+`)
)

// A setting, a flag, a cause, a field of the log, a metric, a field of the status or of OPA's input that the guide doesn't tell
// of is one that nobody finds.
func TestGuidesAreComplete(t *testing.T) {
	for page := range references {
		t.Run(page, func(t *testing.T) { complete(t, page) })
	}
}

func complete(t *testing.T, page string) {
	told := map[string]bool{}
	for _, span := range code.FindAllString(blocks.ReplaceAllString(guide(t, page), ""), -1) {
		told[strings.Trim(span, "`")] = true
		for _, word := range words.FindAllString(span, -1) {
			told[word] = true
		}
	}
	for _, ref := range references[page] {
		found := map[string]bool{}
		for _, src := range mustLoad(t).packages[path.Dir(ref.file)] {
			if src.name != ref.file {
				continue
			}
			ast.Inspect(src.syntax, func(n ast.Node) bool {
				for _, name := range ref.names(n) {
					found[name] = true
				}
				return true
			})
		}
		if len(found) < ref.least {
			t.Errorf("%s: %d names found, want %d: is the list made otherwise now?", ref.file, len(found), ref.least)
		}
		for name := range found {
			if !told[name] {
				t.Errorf("docs/guides/%s does not tell of %s (%s)", page, name, ref.file)
			}
		}
	}
}

func literal(e ast.Expr) []string {
	if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
		if s, err := strconv.Unquote(lit.Value); err == nil && s != "" {
			return []string{s}
		}
	}
	return nil
}

// tags gives the names that fields have in files and answers, but for labels of blocks.
func tags(key string) func(ast.Node) []string {
	return func(n ast.Node) []string {
		field, ok := n.(*ast.Field)
		if !ok || field.Tag == nil {
			return nil
		}
		name, options, _ := strings.Cut(reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get(key), ",")
		if name == "" || strings.Contains(options, "label") {
			return nil
		}
		return []string{name}
	}
}

// flagNames gives the names of flags, where they are bound to variables: fs.StringVar(&v, "name", ...).
func flagNames(n ast.Node) []string {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) < 3 {
		return nil
	}
	if f, ok := call.Fun.(*ast.SelectorExpr); !ok || !strings.HasSuffix(f.Sel.Name, "Var") {
		return nil
	}
	return literal(call.Args[1])
}

// constantsOf gives the values of the constants of a type.
func constantsOf(typ string) func(ast.Node) []string {
	return func(n ast.Node) (values []string) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return nil
		}
		if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != typ {
			return nil
		}
		for _, value := range spec.Values {
			values = append(values, literal(value)...)
		}
		return values
	}
}

// arguments gives the argument at a place, where it is a string, of calls of functions; a method's receiver doesn't count.
func arguments(at int, functions ...string) func(ast.Node) []string {
	return func(n ast.Node) []string {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return nil
		}
		name, place := "", at
		switch f := call.Fun.(type) {
		case *ast.Ident:
			name = f.Name
		case *ast.SelectorExpr: // slog.String("key", value)
			name, place = f.Sel.Name, 0
		}
		if !slices.Contains(functions, name) || len(call.Args) <= place {
			return nil
		}
		return literal(call.Args[place])
	}
}

// fields gives what fields of a name are set to.
func fields(name string) func(ast.Node) []string {
	return func(n ast.Node) []string {
		kv, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return nil
		}
		if key, ok := kv.Key.(*ast.Ident); !ok || key.Name != name {
			return nil
		}
		return literal(kv.Value)
	}
}

// mapKeys gives the keys of maps.
func mapKeys(n ast.Node) []string {
	if kv, ok := n.(*ast.KeyValueExpr); ok {
		return literal(kv.Key)
	}
	return nil
}
