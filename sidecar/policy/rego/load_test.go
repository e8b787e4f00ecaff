package rego

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

// Policies for ghostunnel are in the old language, new ones in today's, and a bundle says which.
func TestLanguages(t *testing.T) {
	for name, text := range map[string]string{
		"v0":             "package test\nimport input\ndefault allow := false\nallow { input.tunnel == \"yes\" }\n",
		"v0 with words":  "package test\nimport future.keywords.if\nimport future.keywords.in\ndefault allow = false\nallow if { input.tunnel in [\"yes\"] }\n",
		"v0 only":        "package test\nallow = any([input.tunnel == \"yes\"])\n",
		"v1":             "package test\ndefault allow := false\n" + strings.TrimPrefix(onTunnel, "package test\n"),
		"v1 by import":   "package test\nimport rego.v1\ndefault allow := false\nallow if input.tunnel == \"yes\"\n",
		"both languages": "package test\nallow := input.tunnel == \"yes\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			e := file(t, text)
			want(t, e, yes, true, "")
			want(t, e, no, false, "")
		})
	}
}

func TestBundles(t *testing.T) {
	v0 := map[string]string{".manifest": `{"rego_version": 0, "roots": ["test", "names"]}`, "data.json": `{"names": ["yes"]}`,
		"test.rego": "package test\nimport future.keywords.in\ndefault allow = false\nallow { input.tunnel in data.names }\n"}
	v1 := map[string]string{".manifest": `{"rego_version": 1}`, "data.json": `{"names": ["yes"]}`,
		"test.rego": "package test\ndefault allow := false\nallow if input.tunnel in data.names\n", "more.rego": "package test.more\nx := 1\n"}
	plain := map[string]string{"test.rego": onTunnel + "default allow := false\n"}
	for name, path := range map[string]string{"v0": tarball(t, v0), "v1": tarball(t, v1), "plain": tarball(t, plain),
		"v0 directory": directory(t, v0), "v1 directory": directory(t, v1), "plain directory": directory(t, plain)} {
		t.Run(name, func(t *testing.T) {
			e := loaded(t, path)
			want(t, e, yes, true, "")
			want(t, e, no, false, "")
		})
	}
}

// Policies reach nothing but their input and their data.
func TestWithheldFunctions(t *testing.T) {
	calls := map[string]string{"http.send": `http.send({"method": "get", "url": "http://127.0.0.1:1"})`, "net.lookup_ip_addr": `net.lookup_ip_addr("localhost")`,
		"opa.runtime": "opa.runtime()", "json.match_schema": `json.match_schema({}, {"$ref": "file:///etc/passwd"})`, "json.verify_schema": `json.verify_schema({})`}
	for _, name := range Withheld() {
		for version, text := range map[string]string{"v1": "package test\nallow if " + calls[name] + "\n", "v0": "package test\nallow { " + calls[name] + " }\n"} {
			for place, path := range map[string]string{"line 2": write(t, "policy.rego", text),
				"a.rego:2": directory(t, map[string]string{".manifest": `{"rego_version": ` + version[1:] + `}`, "a.rego": text})} {
				e, err := New(policy.Rego{Path: path, Query: "data.test.allow"}, nil)
				if err != nil {
					t.Fatal(err)
				}
				err = e.Reload(t.Context())
				if err == nil || !strings.HasSuffix(err.Error(), place+": rego_type_error: undefined function "+name+", which is withheld: a policy decides by its input and its own data") {
					t.Errorf("%s, %s, %s: %v", name, version, place, err)
				}
			}
		}
		// Nor does the query get there.
		e, err := New(policy.Rego{Path: write(t, "policy.rego", onTunnel), Query: calls[name]}, nil)
		if err == nil && e.Reload(t.Context()) == nil {
			t.Errorf("a query may use %s", name)
		}
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	for text, want := range map[string]string{
		"package test\nallow if { } }\n":       "line 2: rego_parse_error: ",
		"package test\nallow { input.x == }\n": "line 2: rego_parse_error: ",
		"package test\nallow if { x == 1 }\n":  "line 2: rego_unsafe_var_error: var x is unsafe",
		"package test\nallow { x == 1 }\n":     "as Rego v0: line 2: rego_unsafe_var_error: var x is unsafe",
		"":                                     "empty module",
		"package test\nallow := true\npackage again\n\xff\xfe": "line 4: rego_parse_error: ",
	} {
		path := write(t, "policy.rego", text)
		e, err := New(policy.Rego{Path: path, Query: "data.test.allow"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Reload(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "rego "+path+": ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for path, want := range map[string]string{
		"/nowhere/policy.rego":                    "rego /nowhere/policy.rego: cannot be read: no such file or directory",
		"/nowhere/bundle":                         "rego /nowhere/bundle: not a bundle: give one, or a file that ends in .rego: no such file or directory",
		filepath.Dir(write(t, "data.json", "{}")): "there is no .rego file in it",
		write(t, "bundle.tar.gz", "x"):            "not a bundle: give one, or a file that ends in .rego: ",
	} {
		e, err := New(policy.Rego{Path: path, Query: "data.test.allow"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, query := range []string{"", "data.", "data.a ==", "allow {"} {
		if _, err := New(policy.Rego{Path: "p", Query: query}, nil); err == nil || !strings.Contains(err.Error(), "not a query: give one such as data.lanyard.allow: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", query, err)
		}
	}
}
