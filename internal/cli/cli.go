// Package cli owns what all of Lanyard's commands share: SPIRE's flag style, one-line errors with advice, exit codes, output
// formats and default paths. It knows no role; the verbs that only talk to a role's socket are in the packages below it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Env is what a command sees of its process.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Exit           func(code int) // ends the process at once, for a second signal
	Root           bool           // the effective user is root
	Dialect        Dialect        // whose command line is spoken

	localize func(string) string // set by Execute, see localizer
}

// Dialect is whose command line a process speaks, by the name it was started as.
type Dialect int

// The dialects. SPIRE's and ghostunnel's differ from Lanyard's in default paths and in how errors look, not in verbs and flags.
const (
	Lanyard Dialect = iota
	SPIREServer
	SPIREAgent
	Ghostunnel
)

// DialectOf gives the dialect for argv[0] without its directory: only the exact names are taken.
func DialectOf(name string) Dialect {
	switch name {
	case "spire-server":
		return SPIREServer
	case "spire-agent":
		return SPIREAgent
	case "ghostunnel":
		return Ghostunnel
	}
	return Lanyard
}

// SPIRE says whether the dialect is one of SPIRE's two.
func (d Dialect) SPIRE() bool { return d == SPIREServer || d == SPIREAgent }

// OSEnv is the environment of this process. exit is os.Exit, which only a main may call.
func OSEnv(d Dialect, exit func(int)) *Env {
	return &Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Exit: exit, Root: os.Geteuid() == 0, Dialect: d}
}

// Execute runs the command that args (without argv[0]) name below root, and gives the exit code: 0; 1 for a failure; 2 for
// wrong usage of a verb that is Lanyard's own, 1 where it is one of SPIRE's or ghostunnel's (see ExitLikeSPIRE).
func Execute(ctx context.Context, env *Env, root *cobra.Command, args []string) int {
	prepare(env, root)
	if len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd) {
		return env.finish(root, complete(env, root, args[1:], args[0] == cobra.ShellCompRequestCmd))
	}
	cmd, args, err := normalize(env, root, args)
	if err != nil {
		return env.finish(cmd, err)
	}
	if len(args) == 1 && args[0] == "--version" && root.Version != "" && cmd == root {
		_, err := fmt.Fprintln(root.OutOrStdout(), root.Version)
		return env.finish(root, err)
	}
	root.SetArgs(args)
	ran, err := root.ExecuteContextC(ctx)
	return env.finish(ran, err)
}

// prepare gives the whole tree its manners.
func prepare(env *Env, root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	if env.Dialect == Ghostunnel { // help goes to stderr there
		root.SetOut(env.Stderr)
	}
	root.SetFlagErrorFunc(flagError)
	root.InitDefaultHelpCmd()
	root.AddCommand(completionVerb(env))
	hideHelp(root)
	env.localize = localizer(root)
	localizeTree(root, env.localize)
}

// localizer rewrites "lanyard issuer entry show" to what it is in the program of one role: "spire-server entry show".
func localizer(root *cobra.Command) func(string) string {
	role, ok := map[string]string{
		"lanyard-issuer": "issuer", "lanyard-agent": "agent", "lanyard-sidecar": "sidecar", "lanyard-sds": "sds",
		"spire-server": "issuer", "spire-agent": "agent", "ghostunnel": "sidecar",
	}[root.Name()]
	if !ok {
		return func(s string) string { return s }
	}
	return func(s string) string { return strings.ReplaceAll(s, "lanyard "+role+" ", root.Name()+" ") }
}

func localizeTree(cmd *cobra.Command, rewrite func(string) string) {
	cmd.Long, cmd.Example = rewrite(cmd.Long), rewrite(cmd.Example)
	for _, c := range cmd.Commands() {
		localizeTree(c, rewrite)
	}
}

func hideHelp(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.Hidden = true
		}
	}
}

// finish prints err and gives the exit code.
func (env *Env) finish(cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	var usage *UsageError
	isUsage := errors.As(err, &usage)
	switch {
	case errors.Is(err, errPrinted):
	case env.Dialect == Ghostunnel && isUsage:
		fmt.Fprintf(env.Stderr, "ghostunnel: error: %v, try --help\n", err)
	case env.Dialect == Ghostunnel:
		env.printLines("error: ", err)
	default:
		env.printLines("Error: ", err)
	}
	for _, hint := range hintsOf(err) {
		fmt.Fprintf(env.Stderr, "hint: %s\n", env.localize(hint))
	}
	if c, ok := errors.AsType[*coded](err); ok {
		return c.code
	}
	if isUsage && !likeSPIRE(cmd) {
		return 2
	}
	return 1
}

// printLines prints an error that joins several one a line, each with the prefix.
func (env *Env) printLines(prefix string, err error) {
	for line := range strings.SplitSeq(strings.TrimRight(err.Error(), "\n"), "\n") {
		fmt.Fprintf(env.Stderr, "%s%s\n", prefix, Harmless([]byte(env.localize(line))))
	}
}

const exitLikeSPIRE = "exit"

// ExitLikeSPIRE makes cmd and all below it exit with 1 for wrong usage too.
func ExitLikeSPIRE(cmd *cobra.Command) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[exitLikeSPIRE] = "spire"
	return cmd
}

// ExitLikeLanyard takes cmd, and all below it, out of what ExitLikeSPIRE said above it.
func ExitLikeLanyard(cmd *cobra.Command) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[exitLikeSPIRE] = "lanyard"
	return cmd
}

func likeSPIRE(cmd *cobra.Command) bool {
	for c := cmd; c != nil; c = c.Parent() {
		if how := c.Annotations[exitLikeSPIRE]; how != "" {
			return how == "spire"
		}
	}
	return false
}
