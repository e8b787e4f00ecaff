package sidecarcmd

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// settingKeys are the keys in the sidecar's sources: the first argument of setting.Errorf and of what makes errors about a key it is
// given, and the field Key.
func settingKeys(t *testing.T) map[string]string {
	keys := map[string]string{}
	add := func(e ast.Expr, where string) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if key, err := strconv.Unquote(lit.Value); err == nil {
				keys[key] = where
			}
		}
	}
	keyed := []string{"Errorf", "Parse", "ParseStatus", "ParseMode", "ParseTrusted", "notNegative", "join", "names", "uris", "validateDirectory"}
	err := filepath.WalkDir("../../../sidecar", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(src, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				name, owner := "", ""
				switch f := n.Fun.(type) {
				case *ast.SelectorExpr:
					name = f.Sel.Name
					if x, ok := f.X.(*ast.Ident); ok {
						owner = x.Name
					}
				case *ast.Ident:
					name = f.Name
				}
				settings := slices.Contains([]string{"setting", "listen", "via", "proxyproto", ""}, owner)
				if settings && slices.Contains(keyed, name) && len(n.Args) > 1 {
					add(n.Args[0], path)
				}
			case *ast.KeyValueExpr:
				if k, ok := n.Key.(*ast.Ident); ok && k.Name == "Key" {
					add(n.Value, path)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || len(keys) < 30 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	return keys
}

// filePaths are the dotted paths of a file's settings, without their tunnel.
func filePaths(v reflect.Type, prefix string, out map[string]bool) {
	for i := range v.NumField() {
		f := v.Field(i)
		name, kind, _ := strings.Cut(f.Tag.Get("hcl"), ",")
		if name == "" || strings.HasPrefix(kind, "label") {
			continue
		}
		out[prefix+name] = true
		if kind != "block" {
			continue
		}
		elem := f.Type
		for elem.Kind() != reflect.Struct {
			elem = elem.Elem()
		}
		if name == "tunnel" {
			filePaths(elem, "", out)
			continue
		}
		filePaths(elem, prefix+name+".", out)
	}
}

func TestEveryKeyHasAPlaceInTheFile(t *testing.T) {
	paths := map[string]bool{}
	filePaths(reflect.TypeFor[file](), "", paths)
	for key, where := range settingKeys(t) {
		path, ok := keyPaths()[key]
		if !ok {
			path = key
		}
		if !paths[path] && !onlyFlags[key] {
			t.Errorf("%s makes errors about %q: the file has no %s", where, key, path)
		}
	}
	for key, path := range keyPaths() {
		if !paths[path] {
			t.Errorf("key %q: the file has no %s", key, path)
		}
	}
}

func TestEveryKeyHasAFlag(t *testing.T) {
	for verb, tc := range flagSets() {
		for key, where := range settingKeys(t) {
			found := slices.ContainsFunc(tc.flags, func(f flag) bool { return f.key == key })
			if !found && !onlyFiles[key] && !otherVerb[verb][key] {
				t.Errorf("%s makes errors about %q: %s has no flag for it", where, key, verb)
			}
		}
	}
}

var (
	// onlyFlags are keys of what a file can't say.
	onlyFlags = map[string]bool{"identity_timeout": true, "timed_reload": true, "auto_acme_renew_check_interval": true, "auto_acme_alt_tls_alpn_port": true}
	// onlyFiles are keys of what a command line can't say, or that are told otherwise.
	onlyFiles = map[string]bool{"tunnel": true, "direction": true, "identity": true, "metrics": true, "acme": true}
	// otherVerb are keys that can't be wrong in a verb.
	otherVerb = map[string]map[string]bool{
		"server": {"unsafe_listen": true, "via": true, "server_name": true, "none": true},
		"client": {"unsafe_target": true, "target_status": true, "proxy_protocol": true, "accept_proxy_protocol": true, "auto_acme_cert": true,
			"auto_acme_email": true, "auto_acme_agree_to_tos": true, "auto_acme_ca": true, "auto_acme_testca": true, "acme": true, "allow_all": true,
			"disable_authentication": true, "auto_acme_renew_check_interval": true, "auto_acme_alt_tls_alpn_port": true},
	}
)

func TestErrorsAreInTheWordsOfTheCommandLine(t *testing.T) {
	o := testOptions(map[string]string{"KEYSTORE_PATH": "ks"})
	flags := o.clientFlags()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.add(fs, flags)
	if err := fs.Parse([]string{"--listen", "x", "--use-workload-api-addr", "y"}); err != nil {
		t.Fatal(err)
	}
	if err := o.environment(flags); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	got := o.inFlags(flags, errors.Join(
		gone,
		setting.Errorf("keystore", "ks", "can't be read: %w", fs2()),
		setting.Errorf("workload_api", "y", "no URI: see keystore ks"),
		setting.Errorf("allow_uris", "", "excludes pins, allow_cns: drop one"),
		setting.Errorf("query", "", "is missing"),
		setting.Errorf("listen", "x", "not local: set unsafe_listen"),
		setting.Errorf("identity", "", "none"),
		setting.Errorf("unheard_of", "1", "no"),
	))
	want := `--listen x: not local: set --unsafe-listen
there is no identity: give --use-workload-api, or --cert with --key, or --keystore
--verify-uri excludes --verify-spki-pin, --verify-cn: drop one
--verify-query is missing
--use-workload-api-addr y: no URI: see --keystore ks
--keystore, from $KEYSTORE_PATH, ks: can't be read: file does not exist
gone
unheard_of 1: no`
	if diff := cmp.Diff(sorted(want), sorted(got.Error())); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(got, fs2()) || !errors.Is(got, gone) {
		t.Error("the causes are lost")
	}
	if o.inFlags(flags, nil) != nil {
		t.Error("an error of nothing")
	}
}

func fs2() error { return fs.ErrNotExist }

// sorted leaves out the order of the first line or two, which are in the order of the flags.
func sorted(s string) []string { return slices.Sorted(slices.Values(strings.Split(s, "\n"))) }

func TestErrorsAreInTheWordsOfTheFile(t *testing.T) {
	conf := hclconf.Parse("f.hcl", []byte(`workload_api = "x"
tunnel "a" {
  listen = "y"
  policy {
    allow_uris = []
  }
}
tunnel "b" {
  identity {
    workload_api = "z"
  }
}
`))
	conf.Decode(&file{})
	err := errors.Join(
		setting.In("a", errors.Join(setting.Errorf("listen", "y", "is wrong"), setting.Errorf("pins", "", "is missing"), setting.Errorf("cert", "c", "no"),
			setting.Errorf("workload_api", "x", "no"))),
		setting.In("b", errors.Join(setting.Errorf("workload_api", "z", "no"), &setting.Error{Key: "tunnel", Value: "b", Problem: "is there twice"})),
		setting.Errorf("status", "", "is missing"), errors.New("other"))
	want := `f.hcl:3: tunnel "a": listen y: is wrong
f.hcl:4: tunnel "a": policy.pins is missing
f.hcl:2: tunnel "a": identity.cert c: no
f.hcl:1: workload_api x: no
f.hcl:10: tunnel "b": identity.workload_api z: no
f.hcl:8: tunnel "b" is there twice
f.hcl: status.listen is missing
other`
	if diff := cmp.Diff(want, wordedInFile(conf, err).Error()); diff != "" {
		t.Error(diff)
	}
}
