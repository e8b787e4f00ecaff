package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// proxy is a command line with ghostunnel's grammar, and a verb of its own beside.
func proxy(ran *string) *cobra.Command {
	root := &cobra.Command{Use: "proxy", Version: "1"}
	flags := func(cmd *cobra.Command) {
		var listen, status string
		var allow Strings
		var unsafe, noDelay bool
		var wait time.Duration
		cmd.Flags().StringVar(&status, "status", "", "")
		cmd.Flags().BoolVar(&unsafe, "unsafe", false, "")
		cmd.Flags().BoolVar(&noDelay, "no-delay", false, "")
		cmd.Flags().DurationVar(&wait, "wait", 0, "")
		if cmd == root {
			return
		}
		cmd.Flags().StringVar(&listen, "listen", "", "")
		cmd.Flags().Var(&allow, "allow", "")
		Alias(cmd.Flags(), "allow", "allow-san")
		cmd.RunE = func(*cobra.Command, []string) error {
			*ran = strings.Join([]string{listen, status, strings.Join(allow, "+"), wait.String()}, " ")
			if unsafe {
				*ran += " unsafe"
			}
			if noDelay {
				*ran += " nodelay"
			}
			return nil
		}
	}
	server := &cobra.Command{Use: "server"}
	flags(root)
	flags(server)
	own := &cobra.Command{Use: "own", RunE: func(*cobra.Command, []string) error { *ran = "own"; return nil }}
	root.AddCommand(Kingpin(server), own)
	return ExitLikeSPIRE(Kingpin(root))
}

func runProxy(t testing.TB, dialect Dialect, args ...string) (ran, stderr string, code int) {
	t.Helper()
	var out, errOut bytes.Buffer
	env := &Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Getenv: func(string) string { return "" }, Dialect: dialect}
	code = Execute(t.Context(), env, proxy(&ran), args)
	return ran, errOut.String(), code
}

func TestGhostunnelsGrammarIsTaken(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{
		"args": "# a comment\n\nserver\n--listen\n a b \n@more\n", "more": "--allow=1\n--status=s\n", "value": "here\n--unsafe\n", "empty": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ args, want string }{
		{"--status s server --listen l", "l s  0s"},
		{"server --listen=l --status=s", "l s  0s"},
		{"--unsafe server --listen l --wait 5s", "l   5s unsafe"},
		{"server --unsafe --listen l", "l   0s unsafe"},
		{"server --no-unsafe --listen l", "l   0s"},
		{"--no-delay server --listen l", "l   0s nodelay"},
		{"server --no-no-delay --listen l", "l   0s"},
		{"server --allow a --allow=b --allow-san c", "  a+b+c 0s"},
		{"server --wait=-1s", "   -1s"},
		{"server --listen=-x --status - --allow=", "-x -  0s"},
		{"server --listen=@value", "@value   0s"},
		{"server --listen @value", "here   0s unsafe"},
		{"@args --wait 1s", " a b  s 1 1s"},
		{"server @empty --listen l", "l   0s"},
		{"server --listen l --", "l   0s"},
		{"own", "own"},
	} {
		got, stderr, code := runProxy(t, Ghostunnel, strings.Split(tc.args, " ")...)
		if diff := cmp.Diff(tc.want, got); diff != "" || code != 0 {
			t.Errorf("%s: exit code %d, %s%s", tc.args, code, stderr, diff)
		}
	}
}

func TestGhostunnelsGrammarRefuses(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, size := range map[string]int{"big": maxArgFile + 1, "long": 1 << 17} {
		text := strings.Repeat("--no-unsafe\n", size/12+1)
		if name == "long" {
			text = strings.Repeat("x", size)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("loop", []byte("@loop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--status x server --status y": "flag 'status' cannot be repeated",
		"server --listen a --listen a": "flag 'listen' cannot be repeated",
		"server --unsafe --no-unsafe":  "flag 'unsafe' cannot be repeated",
		"--listen l server":            "unknown long flag '--listen'",
		"server --no-listen":           "unknown long flag '--no-listen'",
		"server --lisen=x":             "unknown long flag '--lisen'",
		"server --listen":              "expected argument for flag '--listen'",
		"server --listen --unsafe":     "expected argument for flag '--listen', got --unsafe: write --listen=VALUE for a value that begins with a dash",
		"server --wait 5":              "--wait: want a duration with a unit, like 90s, 10m or 24h, got \"5\"",
		"server --wait -1s":            "expected argument for flag '--wait', got -1s: write --wait=VALUE for a value that begins with a dash",
		"server --unsafe=maybe":        "--unsafe: want true or false, got \"maybe\"",
		"help nosuch":                  "expected command but got \"nosuch\"",
		"help server nosuch":           "unexpected nosuch",
		"service install":              "expected command but got \"service\"",
		"server foo":                   "unexpected foo",
		"server -- foo":                "unexpected foo",
		"--status x own":               "unknown long flag '--status'",
		"@nope server":                 "argument @nope: the file of arguments can't be read: no such file or directory",
		"@ server":                     "expected @ file to expand arguments from",
		"@loop server":                 "argument @loop: more than 32 files of arguments: does one name itself?",
		"server @big":                  "argument @big: the file has more than 1 MiB: this is no file of arguments",
		"server @long":                 "argument @long: the file of arguments can't be read: bufio.Scanner: token too long",
		"server --help --bogus":        "unknown long flag '--bogus'",
	} {
		_, stderr, code := runProxy(t, Ghostunnel, strings.Split(args, " ")...)
		if diff := cmp.Diff("ghostunnel: error: "+want+", try --help\n", stderr); diff != "" || code != 1 {
			t.Errorf("%s: exit code %d (-want +got) %s", args, code, diff)
		}
	}
}

func TestHelpAndVersionNeedNoCompleteCommandLine(t *testing.T) {
	for _, args := range []string{"", "--help", "server --help", "--help-long", "--help-man", "--version", "server --version", "--status x", "help server"} {
		ran, stderr, code := runProxy(t, Ghostunnel, strings.Fields(args)...)
		if code != 0 || ran != "" || stderr == "" {
			t.Errorf("%s: exit code %d, ran %q, %s", args, code, ran, stderr)
		}
	}
}

func TestLanyardsOwnWordsForGhostunnelsGrammar(t *testing.T) {
	for args, want := range map[string]string{
		"server --lisen=x":             "Error: unknown flag --lisen of proxy server; did you mean --listen?\n",
		"servr":                        "Error: unknown verb \"servr\" of proxy; did you mean \"server\"?\n",
		"server --listen a --listen b": "Error: flag 'listen' cannot be repeated\n",
		"server foo":                   "Error: unexpected argument \"foo\" of proxy server: flags begin with a dash\n",
	} {
		_, stderr, code := runProxy(t, Lanyard, strings.Fields(args)...)
		if diff := cmp.Diff(want, stderr); diff != "" || code != 1 {
			t.Errorf("%s: exit code %d (-want +got) %s", args, code, diff)
		}
	}
}

func FuzzKingpin(f *testing.F) {
	f.Add("server\x00--listen\x00x\x00--no-unsafe")
	f.Add("--status=s\x00server\x00--\x00-x\x00@args")
	f.Add("--no-no-delay\x00--wait=-1s\x00server\x00--allow=\x00--allow-san\x00@")
	f.Chdir(f.TempDir())
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		if strings.HasPrefix(args[0], "__complete") || strings.Contains(line, "completion") {
			return // cobra's own
		}
		for _, arg := range args {
			if strings.HasPrefix(arg, "@/") || strings.HasPrefix(arg, "@.") {
				return // files of this machine
			}
		}
		_, stderr, code := runProxy(t, Ghostunnel, args...)
		if code < 0 || code > 1 {
			t.Fatalf("exit code %d", code)
		}
		if code != 0 && !strings.HasPrefix(stderr, "ghostunnel: error: ") {
			t.Fatalf("exit code %d, and said %q", code, stderr)
		}
	})
}
