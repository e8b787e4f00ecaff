package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompletionKnowsEitherStyleOfFlags(t *testing.T) {
	for _, tc := range []struct{ line, want string }{
		{"", "completion entry exec help :4"},
		{"e", "entry exec :4"},
		{"help e", ":4"},
		{"entry ", "create :4"},
		{"entry create ", "-node -selector -spiffeID -status -timeout -ttl :4"},
		{"entry create -s", "-selector -spiffeID -status :4"},
		{"entry create --s", "--selector --spiffeID --status :4"},
		{"entry create -spiffeID x -s", "-selector -status :4"},
		{"entry create -spiffeID=x -s", "-selector -status :4"},
		{"entry create -selector x -s", "-selector -spiffeID -status :4"},
		{"entry create -node -s", "-selector -spiffeID -status :4"},
		{"entry create -spiffeID -", ":4"},
		{"entry create -spiffeID -s -t", "-timeout -ttl :4"},
		{"entry create -node=", "-node=true -node=false :4"},
		{"entry create -node=f", "-node=false :4"},
		{"entry create -nonsense=", ":4"},
		{"entry create -out ", ":0"},
		{"entry create -output ", "pretty json :4"},
		{"entry create --output j", "json :4"},
		{"entry create -output=", "-output=pretty -output=json :4"},
		{"nonsense ", ":4"},
		{"exec ", ":0"},
		{"exec -- a", ":0"},
		{"completion ", "bash zsh fish :4"},
		{"completion z", "zsh :4"},
	} {
		var out bytes.Buffer
		env := &Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }}
		var ran []string
		root := tree(&ran)
		if strings.Contains(tc.line, "-out") {
			create, _, err := root.Find([]string{"entry", "create"})
			if err != nil {
				t.Fatal(err)
			}
			new(Output).AddFlag(create.Flags())
			create.Flags().String("out", "", "`FILE` to write")
		}
		code := Execute(t.Context(), env, root, append([]string{"__completeNoDesc"}, strings.Split(tc.line, " ")...))
		if diff := cmp.Diff(tc.want, strings.Join(strings.Fields(out.String()), " ")); diff != "" || code != 0 {
			t.Errorf("%q: exit code %d %s", tc.line, code, diff)
		}
	}
}

func TestCompletionScriptsAreForThisProgram(t *testing.T) {
	for _, shell := range shells() {
		var out bytes.Buffer
		env := &Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }}
		var ran []string
		if code := Execute(t.Context(), env, tree(&ran), []string{"completion", shell}); code != 0 || !strings.Contains(out.String(), "__complete") {
			t.Errorf("%s: exit code %d, %.100s", shell, code, out.String())
		}
	}
}

// TestBashCompletes runs the script in bash, which breaks words at = and :.
func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	dir := t.TempDir()
	// What the program would say is TestCompletionKnowsEitherStyleOfFlags' business: this one tells what it was asked.
	tool := "#!/bin/sh\nprintf '%s|' \"$@\" > " + dir + "/asked\ncase \"$*\" in *-output=*) printf '%s\\n' -output=pretty -output=json :4;; *-write*) echo :16;; *) printf 'entry\\nexec\\n:4\\n';; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "tool"), []byte(tool), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ line, words, asked, want string }{
		{"tool e", "tool e", "__completeNoDesc|e|", "entry exec"},
		{"tool ", "tool ''", "__completeNoDesc||", "entry exec"},
		{"tool list -output=p", "tool list -output = p", "__completeNoDesc|list|-output=p|", "pretty"},
		{"tool list -id spiffe://a/b e", "tool list -id spiffe : //a/b e", "__completeNoDesc|list|-id|spiffe://a/b|e|", "entry exec"},
		{"tool -write o", "tool -write o", "__completeNoDesc|-write|o|", "out"},
	} {
		script := bashScript("tool") + "\ncd " + dir + "; PATH=" + dir + ":$PATH; COMP_LINE='" + tc.line + "'; COMP_POINT=${#COMP_LINE}; COMP_WORDS=(" + tc.words + "); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _tool; echo \"${COMPREPLY[*]}\""
		out, err := exec.Command(bash, "--norc", "-c", script).CombinedOutput()
		asked, _ := os.ReadFile(filepath.Join(dir, "asked"))
		if got := strings.TrimSpace(string(out)); err != nil || got != tc.want || string(asked) != tc.asked {
			t.Errorf("%q: %v, got %q, want %q; asked %s, want %s", tc.line, err, got, tc.want, asked, tc.asked)
		}
	}
}

func FuzzComplete(f *testing.F) {
	f.Add("entry\x00create\x00-s")
	f.Add("entry\x00--\x00-s=")
	f.Add("help\x00help\x00")
	f.Fuzz(func(t *testing.T, line string) {
		var out bytes.Buffer
		env := &Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }}
		var ran []string
		if code := Execute(t.Context(), env, tree(&ran), append([]string{"__complete"}, strings.Split(line, "\x00")...)); code != 0 {
			t.Fatalf("exit code %d: %s", code, out.String())
		}
		if ran != nil {
			t.Fatalf("ran: %q", ran)
		}
	})
}
