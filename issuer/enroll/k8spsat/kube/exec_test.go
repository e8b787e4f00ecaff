package kube

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// A credential plugin is run when what it printed last has expired or is refused, and not before.
func TestCredentialPlugin(t *testing.T) {
	f := newFake(t)
	good := "t1"
	f.handle(podPath, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+good {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Write([]byte(`{"metadata":{"name":"agent","uid":"1"}}`))
	})
	c, file := f.client(t, object{"exec": object{
		"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "args": []string{"an arg"},
		"env": []object{{"name": "EXTRA", "value": "x"}}, "interactiveMode": "Never",
	}})
	dir := filepath.Dir(file)
	// It counts its runs, and prints the token that they make.
	script(t, dir, "plugin", `[ "$1" = "an arg" ] && [ "$EXTRA" = x ] || exit 1
case $KUBERNETES_EXEC_INFO in *'"interactive":false'*) ;; *) exit 2;; esac
echo run >>`+dir+`/runs
n=$(wc -l <`+dir+`/runs | tr -d ' ')
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t%s","expirationTimestamp":"%s"}}' "$n" "$(cat `+dir+`/until)"`)
	runs := func() int {
		data, err := os.ReadFile(filepath.Join(dir, "runs"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(data), "\n")
	}
	ask := func(want int) {
		t.Helper()
		if _, err := c.Pod(t.Context(), "spire", "agent"); err != nil {
			t.Fatal(err)
		}
		if got := runs(); got != want {
			t.Errorf("the plugin ran %d times, want %d", got, want)
		}
	}
	until := func(d time.Duration) {
		testca.Write(t, filepath.Join(dir, "until"), []byte(time.Now().Add(d).UTC().Format(time.RFC3339)))
	}
	until(time.Hour)
	ask(1)
	ask(1)
	good = "t2" // the first was revoked
	until(-time.Minute)
	ask(2)
	good = "t3" // the second has expired
	until(time.Hour)
	ask(3)
	good = "none"
	if _, err := c.Pod(t.Context(), "spire", "agent"); err == nil || !strings.Contains(err.Error(), "answers 401") {
		t.Errorf("of what is refused twice: %v", err)
	}
}

func TestCredentialPluginsThatFail(t *testing.T) {
	f := newFake(t)
	const head = `{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",`
	for _, test := range []struct{ name, script, want string }{
		{"failure", "echo first >&2; echo not logged in >&2; exit 3", "exit status 3: not logged in"},
		{"no output", "true", "prints no ExecCredential"},
		{"no status", "echo '" + head + `"x":1}'`, "prints no ExecCredential"},
		{"another version", `echo '{"apiVersion":"v1","kind":"ExecCredential","status":{"token":"x"}}'`, "prints no ExecCredential"},
		{"no token", "echo '" + head + `"status":{}}'`, "neither a token nor a certificate"},
		{"half a certificate", "echo '" + head + `"status":{"clientCertificateData":"x"}}'`, "neither a token nor a certificate"},
		{"white space", "echo '" + head + `"status":{"token":"a b"}}'`, "white space"},
		{"endless", fmt.Sprintf("head -c %d /dev/zero", maxCredential+1), "prints more than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, file := f.client(t, object{"exec": object{"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin"}})
			script(t, filepath.Dir(file), "plugin", test.script)
			if _, err := c.Node(t.Context(), "n"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	c, _ := f.client(t, object{"exec": object{
		"apiVersion": "client.authentication.k8s.io/v1", "command": "lanyard-no-such-plugin", "installHint": "get it at example.org",
	}})
	if _, err := c.Node(t.Context(), "n"); err == nil || !strings.Contains(err.Error(), "(get it at example.org)") {
		t.Errorf("a plugin that is not there: %v", err)
	}
}
