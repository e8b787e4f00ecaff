package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	// named is how the guides name a test: its package's directory and its function. What looks like a test's name and isn't
	// written so would be checked by nobody.
	named   = regexp.MustCompile("`([a-z][a-z0-9_/-]*)\\.((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	unnamed = regexp.MustCompile(`(?:Test|Fuzz|Benchmark)[A-Z]\w+`)
	// gapNumbers are the numbers in the name of a test, as in TestGap22And27PortInUseNamesItsHolder.
	gapNumbers = regexp.MustCompile(`^TestGap(\d\d(?:And\d\d)*)`)
)

// What makes a row without a test right.
var untested = []string{"still to come", "macos", "windows", "go's own"}

func guide(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guides", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// row is one of a table.
type row struct {
	line    int
	section string // the heading it is below
	cells   []string
}

func (r row) String() string { return fmt.Sprintf("line %d: %s", r.line, r.cells[0]) }

// tests are the names in the last cell.
func (r row) tests() []string {
	var names []string
	for _, match := range named.FindAllStringSubmatch(r.cells[len(r.cells)-1], -1) {
		names = append(names, match[2])
	}
	return names
}

// rows are those of all tables of a guide, without their heads.
func rows(text string) []row {
	var all []row
	section, head := "", true
	for i, line := range strings.Split(text, "\n") {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = title
		}
		line, ok := strings.CutPrefix(line, "|")
		switch {
		case !ok:
			head = true
		case strings.Trim(line, "-:| ") == "":
			head = false
		case !head:
			cells := strings.Split(strings.ReplaceAll(strings.TrimSuffix(line, "|"), `\|`, "/"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			all = append(all, row{i + 1, section, cells})
		}
	}
	return all
}

// Whoever reads that a test shows something finds that test.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	tests := map[string]bool{}
	for dir, sources := range mustLoad(t).packages {
		for _, src := range sources {
			for _, decl := range src.syntax.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && src.test {
					tests[dir+"."+f.Name.Name] = true
				}
			}
		}
	}
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "guides", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no guides: %v", err)
	}
	for _, name := range []string{"README.md", "CHANGELOG.md", "docs/architecture.md", "docs/performance.md", "docs/spire-differences.md"} {
		pages = append(pages, filepath.Join("..", "..", name))
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			matches := named.FindAllStringSubmatch(line, -1)
			for _, match := range matches {
				if name := match[1] + "." + match[2]; !tests[name] {
					t.Errorf("%s:%d names %s, which does not exist", filepath.Base(page), i+1, name)
				}
			}
			if len(unnamed.FindAllString(line, -1)) != len(matches) {
				t.Errorf("%s:%d names a test in another form than `folder.TestName`: %s", filepath.Base(page), i+1, line)
			}
		}
	}
}

// Each row of the guide from ghostunnel is shown by a test, or says why there is none.
func TestGhostunnelGuideNamesATestInEachRow(t *testing.T) {
	for _, r := range rows(guide(t, "from-ghostunnel.md")) {
		if r.section == "From stunnel" || len(r.tests()) > 0 {
			continue
		}
		excused := slices.ContainsFunc(untested, func(word string) bool { return strings.Contains(strings.ToLower(strings.Join(r.cells, " ")), word) })
		if last := r.cells[len(r.cells)-1]; last != "-" || !excused {
			t.Errorf("%v: no test; one without has a - there, and says one of %q", r, untested)
		}
	}
}

// The list of ghostunnel's flags is that of the command line's own test.
func TestGhostunnelGuideHasARowForEachFlag(t *testing.T) {
	const where = "cmd/internal/sidecarcmd/flag_test.go"
	sections := map[string]string{"ghostunnelGlobal": "Flags of both commands", "ghostunnelServer": "Flags of `server`", "ghostunnelClient": "Flags of `client`"}
	all := rows(guide(t, "from-ghostunnel.md"))
	found := 0
	for name, value := range constants(t, where) {
		section := sections[name]
		if section == "" {
			continue
		}
		found++
		flags := strings.Fields(value)
		if name == "ghostunnelGlobal" {
			flags = append(flags, "keychain-identity", "keychain-issuer", "keychain-require-token", "eventlog")
		}
		for _, flag := range flags {
			told := regexp.MustCompile("`--" + regexp.QuoteMeta(flag) + "[` ]")
			if !slices.ContainsFunc(all, func(r row) bool { return r.section == section && told.MatchString(r.cells[0]) }) {
				t.Errorf("--%s has no row below %q", flag, section)
			}
		}
	}
	if found != len(sections) {
		t.Errorf("%s has not the flags of ghostunnel any more", where)
	}
}

// constants are the strings that a file of the module calls by a name.
func constants(t *testing.T, file string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, src := range mustLoad(t).packages[filepath.ToSlash(filepath.Dir(file))] {
		if src.name != file {
			continue
		}
		ast.Inspect(src.syntax, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != len(spec.Names) {
				return true
			}
			for i, name := range spec.Names {
				if lit, ok := spec.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					value, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Fatal(err)
					}
					found[name.Name] = value
				}
			}
			return true
		})
	}
	return found
}

// gaps is how many defects and limits of ghostunnel there are rows for.
const gaps = 31

// A gap that is closed has a test with its number; one that isn't says so.
func TestGhostunnelGuideHasARowForEachGap(t *testing.T) {
	next := 1
	for _, r := range rows(guide(t, "from-ghostunnel.md")) {
		if r.section != "The 31 gaps" {
			continue
		}
		if n, err := strconv.Atoi(r.cells[0]); err != nil || n != next || len(r.cells) != 4 {
			t.Fatalf("%v: want gap %d, in four cells", r, next)
		}
		numbered := false
		for _, name := range r.tests() {
			match := gapNumbers.FindStringSubmatch(name)
			if match == nil {
				continue
			}
			if !slices.Contains(strings.Split(match[1], "And"), fmt.Sprintf("%02d", next)) {
				t.Errorf("%v: %s is about another gap", r, name)
			}
			numbered = true
		}
		does := strings.ToLower(r.cells[2])
		switch {
		case strings.Contains(does, "closed") && !numbered:
			t.Errorf("%v: closed, and no test has its number", r)
		case !strings.Contains(does, "closed") && !strings.Contains(does, "still to come"):
			t.Errorf("%v: neither closed nor still to come", r)
		}
		next++
	}
	if next != gaps+1 {
		t.Errorf("%d gaps have a row, want %d", next-1, gaps)
	}
}
