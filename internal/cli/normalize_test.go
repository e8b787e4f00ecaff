package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// tree is a command line with every kind of flag; ran gets what the verb saw.
func tree(ran *[]string) *cobra.Command {
	root := &cobra.Command{Use: "tool", Version: "1"}
	group := &cobra.Command{Use: "entry"}
	var id, status string
	var ttl int
	var node bool
	var wait time.Duration
	var selectors Strings
	verb := &cobra.Command{Use: "create", RunE: func(cmd *cobra.Command, args []string) error {
		*ran = append([]string{id, status, selectors.String()}, args...)
		if node {
			*ran = append(*ran, "node")
		}
		if ttl != 0 {
			*ran = append(*ran, time.Duration(ttl).String())
		}
		return nil
	}}
	verb.Flags().StringVar(&id, "spiffeID", "", "")
	verb.Flags().IntVar(&ttl, "ttl", 0, "")
	verb.Flags().BoolVar(&node, "node", false, "")
	verb.Flags().DurationVar(&wait, "timeout", 0, "")
	verb.Flags().Var(&selectors, "selector", "")
	group.PersistentFlags().StringVar(&status, "status", "", "")
	NotYetFlags(group, "SPIRE", "old")
	exec := &cobra.Command{Use: "exec", Args: cobra.ArbitraryArgs, RunE: func(_ *cobra.Command, args []string) error { *ran = args; return nil }}
	group.AddCommand(verb)
	root.AddCommand(ExitLikeSPIRE(NotYet(group, "purge")), exec)
	return root
}

func run(t testing.TB, dialect Dialect, args ...string) (ran []string, stderr string, code int) {
	var out, errOut bytes.Buffer
	env := &Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Getenv: func(string) string { return "" }, Dialect: dialect}
	code = Execute(t.Context(), env, tree(&ran), args)
	return ran, errOut.String(), code
}

func TestFlagsInEveryStyleMeanTheSame(t *testing.T) {
	for _, tc := range []struct {
		args string
		want []string
	}{
		{"entry create -spiffeID x", []string{"x", "", ""}},
		{"entry create --spiffeID x", []string{"x", "", ""}},
		{"entry create -spiffeID=x", []string{"x", "", ""}},
		{"entry create --spiffeID=x", []string{"x", "", ""}},
		{"entry create -spiffeID=", []string{"", "", ""}},
		{"entry create -spiffeID=a=b", []string{"a=b", "", ""}},
		{"entry create -spiffeID -x", []string{"-x", "", ""}},
		{"entry create -spiffeID --", []string{"--", "", ""}},
		{"entry create -spiffeID -", []string{"-", "", ""}},
		{"entry create -spiffeID a -spiffeID b", []string{"b", "", ""}},
		{"entry create -selector a,b -selector c", []string{"", "", "a,b c"}},
		{"entry create -node", []string{"", "", "", "node"}},
		{"entry create -node=true -ttl 5", []string{"", "", "", "node", "5ns"}},
		{"entry create -node=false", []string{"", "", ""}},
		{"entry -status s create -spiffeID x", []string{"x", "s", ""}},
		{"entry create -spiffeID x --status s", []string{"x", "s", ""}},
		{"exec a b -- -c --d", []string{"a", "b", "-c", "--d"}},
	} {
		got, stderr, code := run(t, Lanyard, strings.Fields(tc.args)...)
		if diff := cmp.Diff(tc.want, got); diff != "" || code != 0 {
			t.Errorf("%s: exit code %d, %s%s", tc.args, code, stderr, diff)
		}
	}
}

func TestFaultsOfTheCommandLineAreNamed(t *testing.T) {
	for _, tc := range []struct {
		args, want string
		code       int
		dialect    Dialect
	}{
		{"entry creat", "Error: unknown verb \"creat\" of tool entry; did you mean \"create\"?\n", 1, Lanyard},
		{"entry xyzzy", "Error: unknown verb \"xyzzy\" of tool entry; it has: create\n", 1, Lanyard},
		{"entry purge", "Error: tool entry purge: known to SPIRE, not supported yet\n", 1, Lanyard},
		{"help entri", "Error: unknown verb \"entri\" of tool; did you mean \"entry\"?\n", 2, Lanyard},
		{"entri", "Error: unknown verb \"entri\" of tool; did you mean \"entry\"?\n", 2, Lanyard},
		{"entry", "Error: tool entry needs a verb: create\n", 1, Lanyard},
		{"entry create -spiffe-id x", "Error: unknown flag -spiffe-id of tool entry create; did you mean -spiffeID?\n", 1, Lanyard},
		{"entry create --spiffeId=x", "Error: unknown flag --spiffeId of tool entry create; did you mean --spiffeID?\n", 1, Lanyard},
		{"entry create -qqqqqqqq", "Error: unknown flag -qqqqqqqq of tool entry create; \"tool entry create -h\" lists its flags\n", 1, Lanyard},
		{"entry create -old x", "Error: --old: known to SPIRE, not supported yet; remove it\n", 1, Lanyard},
		{"entry create -spiffeID", "Error: flag -spiffeID needs a value\n", 1, Lanyard},
		{"entry create -ttl x", "Error: flag -ttl: want a whole number, got \"x\"\n", 1, Lanyard},
		{"entry create -node=x", "Error: flag -node: want true or false, got \"x\"\n", 1, Lanyard},
		{"entry create -timeout 5", "Error: flag -timeout: want a duration with a unit, like 90s, 10m or 24h, got \"5\"\n", 1, Lanyard},
		{"entry create x", "Error: unexpected argument \"x\" of tool entry create: flags begin with a dash\n", 1, Lanyard},
		{"exec -x", "Error: unknown flag -x of tool exec: it has none here\n", 2, Lanyard},
		{"entry --statsu x", "ghostunnel: error: unknown long flag '--statsu', try --help\n", 1, Ghostunnel},
		{"entry create -- x", "Error: unexpected argument \"x\" of tool entry create: flags begin with a dash\n", 1, Lanyard},
	} {
		_, stderr, code := run(t, tc.dialect, strings.Fields(tc.args)...)
		if diff := cmp.Diff(tc.want, stderr); diff != "" || code != tc.code {
			t.Errorf("%s: exit code %d, want %d; (-want +got) %s", tc.args, code, tc.code, diff)
		}
	}
}

func FuzzExecute(f *testing.F) {
	f.Add("entry\x00create\x00-spiffeID\x00x")
	f.Add("entry\x00-status=s\x00create\x00--\x00-x")
	f.Add("-\x00--\x00---x\x00-=\x00help\x00completion")
	f.Add("exec\x00a\x00--\x00-b")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		if strings.HasPrefix(args[0], "__complete") || strings.Contains(line, "completion") {
			return // cobra's own
		}
		_, stderr, code := run(t, Lanyard, args...)
		if code < 0 || code > 2 {
			t.Fatalf("exit code %d", code)
		}
		if code != 0 && !strings.HasPrefix(stderr, "Error: ") {
			t.Fatalf("exit code %d, and said %q", code, stderr)
		}
	})
}
