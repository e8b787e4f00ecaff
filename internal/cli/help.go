package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is how wide flags are explained, in columns.
const helpWidth = 110

// printHelp is what -h prints.
func printHelp(cmd *cobra.Command, _ []string) {
	long := cmd.Long
	if long == "" {
		long = cmd.Short
	}
	w := cmd.OutOrStdout()
	if long != "" {
		fmt.Fprintf(w, "%s\n\n", trimRight(long))
	}
	fmt.Fprint(w, cmd.UsageString())
}

func printUsage(cmd *cobra.Command) error {
	_, err := io.WriteString(cmd.OutOrStderr(), usage(cmd))
	return err
}

func usage(cmd *cobra.Command) string {
	var b strings.Builder
	line := cmd.CommandPath() + " VERB [flags]"
	if cmd.Runnable() {
		line = cmd.UseLine()
	}
	fmt.Fprintf(&b, "Usage:\n  %s", line)
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\n\nVerbs:")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&b, "\n  %-*s %s", c.NamePadding(), c.Name(), c.Short)
			}
		}
	}
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\n\nExamples:\n%s", cmd.Example)
	}
	if cmd.HasAvailableLocalFlags() {
		own, common := splitFlags(cmd.LocalFlags())
		fmt.Fprintf(&b, "\n\nFlags (-name and --name are the same):\n%s\n", trimRight(own.FlagUsagesWrapped(helpWidth)))
		if common.HasAvailableFlags() {
			fmt.Fprintf(&b, "\nFlags of all verbs that call the same program:\n%s\n", trimRight(common.FlagUsagesWrapped(helpWidth)))
		}
	}
	if cmd.HasAvailableInheritedFlags() {
		fmt.Fprintf(&b, "\nFlags of all verbs of %s:\n%s\n", cmd.Parent().Name(), trimRight(cmd.InheritedFlags().FlagUsagesWrapped(helpWidth)))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n\"%s VERB -h\" tells more about one.\n", cmd.CommandPath())
	}
	return b.String()
}

const commonFlag = "common"

// Common marks flags that many verbs have, so that the help of each tells what is its own first.
func Common(fs *pflag.FlagSet, names ...string) {
	for _, name := range names {
		if f := fs.Lookup(name); f != nil {
			f.Annotations = map[string][]string{commonFlag: {}}
		}
	}
}

// splitFlags parts a verb's own flags from those that Common marked.
func splitFlags(fs *pflag.FlagSet) (own, common *pflag.FlagSet) {
	own, common = pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	own.SortFlags, common.SortFlags = fs.SortFlags, false
	fs.VisitAll(func(f *pflag.Flag) {
		if _, ok := f.Annotations[commonFlag]; ok {
			common.AddFlag(f)
			return
		}
		own.AddFlag(f)
	})
	return own, common
}

func trimRight(s string) string { return strings.TrimRightFunc(s, unicode.IsSpace) }
