package archtest

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

func TestEachPackageSaysWhatItOwns(t *testing.T) {
	for dir, sources := range mustLoad(t).packages {
		var doc string
		byHand := false
		for _, src := range sources {
			byHand = byHand || !src.generated
			if src.syntax.Doc != nil && !src.generated {
				doc += src.syntax.Doc.Text()
			}
		}
		switch name := strings.TrimSuffix(sources[0].syntax.Name.Name, "_test"); {
		case !byHand:
		case doc == "":
			t.Errorf("%s has no package comment", dir)
		case name != "main" && !strings.HasPrefix(doc, "Package "+name):
			t.Errorf("%s: its package comment begins %.30q, want %q", dir, doc, "Package "+name)
		}
	}
}

// allowed are uses of what the habits forbid, "file: what", each with its reason.
var allowed = map[string]string{
	"internal/unixsock/unixsock.go: context.Background": "listening on a UNIX socket resolves no name: there is nothing to cancel",
	"issuer/store/etcdlog.go: context.TODO":             "etcd logs through zap, which hands on no context",
}

func TestHabits(t *testing.T) {
	m := mustLoad(t)
	used := map[string]bool{}
	for _, sources := range m.packages {
		for _, src := range sources {
			if src.generated {
				continue
			}
			for _, found := range offences(src) {
				key := src.name + ": " + found.what
				if used[key] = true; allowed[key] == "" {
					t.Errorf("%s: %s: %s", m.fset.Position(found.at), found.what, found.mend)
				}
			}
		}
	}
	for key := range allowed {
		if !used[key] {
			t.Errorf("%q is allowed, but not there any more: remove it", key)
		}
	}
}

type offence struct {
	at         token.Pos
	what, mend string
}

// offences are the habits a file breaks.
func offences(src source) []offence {
	var found []offence
	main := src.syntax.Name.Name == "main"
	ast.Inspect(src.syntax, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncDecl:
			if node.Recv == nil && node.Name.Name == "init" {
				found = append(found, offence{node.Pos(), "init()", "importing a package must do nothing"})
			}
		case *ast.SelectorExpr:
			pkg, ok := node.X.(*ast.Ident)
			if !ok {
				break
			}
			switch what := pkg.Name + "." + node.Sel.Name; {
			case slices.Contains([]string{"log.Fatal", "log.Fatalf", "log.Fatalln", "log.Panic", "log.Panicf"}, what):
				found = append(found, offence{node.Pos(), what, "return the error"})
			case what == "os.Exit" && !main && !src.test:
				found = append(found, offence{node.Pos(), what, "only main ends the process"})
			case (what == "context.Background" || what == "context.TODO") && !main && !src.test:
				found = append(found, offence{node.Pos(), what, "take the context from the caller"})
			}
		}
		return true
	})
	return found
}
