// Package archtest holds the module to its import rules and habits. It reads the files itself: a test that asks the
// go command alone is answered from the test cache after the rule was broken. It does not judge style; the linters do.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const modulePath = "github.com/lanyard-mtls/lanyard"

// source is one Go file of the module.
type source struct {
	name      string // slash path from the module's root
	test      bool
	generated bool
	syntax    *ast.File
}

// imports are the import paths of the file.
func (s source) imports() []string {
	var paths []string
	for _, spec := range s.syntax.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// module is every Go file of this module, by package directory, whatever its build constraints are.
type module struct {
	fset     *token.FileSet
	packages map[string][]source // by slash path from the root; "." is the root
}

// load reads the module, once for all tests of this package.
var load = sync.OnceValues(func() (*module, error) {
	root := filepath.Join("..", "..")
	// Read for the test cache's sake: what the go command says of dependencies changes only with these.
	for _, name := range []string{"go.mod", "go.sum"} {
		if _, err := os.ReadFile(filepath.Join(root, name)); err != nil {
			return nil, err
		}
	}
	m := &module{fset: token.NewFileSet(), packages: map[string][]source{}}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != root && !ours(name) {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		return m.add(root, name)
	})
	return m, err
})

// ours tells whether a directory belongs to this module.
func ours(dir string) bool {
	base := filepath.Base(dir)
	if base[0] == '.' || base[0] == '_' || base == "testdata" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod")) // another module
	return err != nil
}

func (m *module) add(root, name string) error {
	file, err := parser.ParseFile(m.fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return err
	}
	rel = filepath.ToSlash(rel)
	dir := path.Dir(rel)
	m.packages[dir] = append(m.packages[dir], source{
		name: rel, test: strings.HasSuffix(rel, "_test.go"), generated: ast.IsGenerated(file), syntax: file,
	})
	return nil
}

// local is an import path as a directory of this module, if it is one.
func local(importPath string) (dir string, ok bool) {
	return strings.CutPrefix(importPath, modulePath+"/")
}

// closure is every directory of the module that a build of dir links, dir included.
func (m *module) closure(dir string) []string {
	seen := map[string]bool{}
	var visit func(string)
	visit = func(dir string) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		for _, src := range m.packages[dir] {
			if src.test {
				continue
			}
			for _, imported := range src.imports() {
				if next, ok := local(imported); ok {
					visit(next)
				}
			}
		}
	}
	visit(dir)
	var dirs []string
	for dir := range seen {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	return dirs
}

// mustLoad is load for a test.
func mustLoad(t *testing.T) *module {
	t.Helper()
	m, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.packages) < 5 {
		t.Fatalf("found only %d packages: not the module's root?", len(m.packages))
	}
	return m
}
