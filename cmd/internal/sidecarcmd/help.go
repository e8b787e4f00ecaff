package sidecarcmd

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is how wide help may be, in columns.
const helpWidth = 110

// grouped makes cmd's usage list its flags under the headings of their groups.
func grouped(cmd *cobra.Command, flags []flag, own bool) {
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		w := cmd.OutOrStdout()
		fmt.Fprintf(w, "Usage:\n  %s\n", cmd.UseLine())
		if cmd.Example != "" {
			fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
		}
		writeGroups(w, cmd.Flags(), flags)
		if own {
			fmt.Fprint(w, "\n"+grammarHelp+"\n")
		}
		return nil
	})
}

const grammarHelp = `A flag's value follows it after = or as the next argument. --no-NAME unsets a switch. @FILE stands for the arguments in
FILE, one a line. Durations need a unit: 90s, 10m, 24h.`

// writeGroups writes the usage of flags by group. A line begins with the flag; its text is wrapped beside.
func writeGroups(w io.Writer, fs *pflag.FlagSet, flags []flag) {
	for _, g := range groupOrder() {
		part := pflag.NewFlagSet("", pflag.ContinueOnError)
		part.SortFlags = false
		for _, f := range flags {
			if f.group != g {
				continue
			}
			shown := *fs.Lookup(f.name)
			if f.env != "" {
				shown.Usage += " [$" + f.env + "]"
			}
			part.AddFlag(&shown)
		}
		if part.HasAvailableFlags() {
			fmt.Fprintf(w, "\n%s:\n%s", g, strings.TrimRight(part.FlagUsagesWrapped(helpWidth), " \n")+"\n")
		}
	}
}

// ghostunnelHelp makes root's help tell all: ghostunnel has one text for both commands.
func ghostunnelHelp(root *cobra.Command, verbs map[string][]flag) {
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		w := cmd.OutOrStdout()
		fmt.Fprintf(w, "Usage:\n  %s [flags] server|client [flags]\n\nFlags of both, before or after the command\n", root.Name())
		part := func(flags []flag, global bool) {
			fs := pflag.NewFlagSet("", pflag.ContinueOnError)
			var some []flag
			for _, f := range flags {
				if f.global == global {
					f.add(fs, true)
					some = append(some, f)
				}
			}
			writeGroups(w, fs, some)
		}
		part(verbs["server"], true)
		for _, verb := range root.Commands() {
			if flags := verbs[verb.Name()]; flags != nil {
				fmt.Fprintf(w, "\nCommand %s: %s\n", verb.Name(), verb.Short)
				part(flags, false)
			}
		}
		_, err := fmt.Fprintf(w, "\n%s\n", grammarHelp)
		return err
	})
}

// writeManual writes a manual page of both verbs.
func writeManual(w io.Writer, name string, verbs map[string][]flag) {
	fmt.Fprintf(w, ".TH %s 1\n.SH NAME\n%s \\- %s\n.SH SYNOPSIS\n.B %s\n[flags] server|client [flags]\n.SH DESCRIPTION\n%s\n%s\n",
		roff(strings.ToUpper(name)), roff(name), roff(Short), roff(name), roff(Long), roff(strings.ReplaceAll(grammarHelp, "\n", " ")))
	for _, verb := range []string{"server", "client"} {
		fmt.Fprintf(w, ".SH %s\n", strings.ToUpper(verb))
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		for _, g := range groupOrder() {
			fmt.Fprintf(w, ".SS %s\n", roff(string(g)))
			for _, f := range verbs[verb] {
				if f.group != g || f.help == "" {
					continue
				}
				f.add(fs, false)
				value, usage := pflag.UnquoteUsage(fs.Lookup(f.name))
				fmt.Fprintf(w, ".TP\n\\fB\\-\\-%s\\fR \\fI%s\\fR\n%s\n", roff(f.name), roff(value), roff(usage))
			}
		}
	}
}

// roff escapes text for a manual page.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		return `\&` + s
	}
	return s
}

func hide(f *pflag.Flag) { f.Hidden = true }
