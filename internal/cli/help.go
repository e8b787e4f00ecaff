package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
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
		fmt.Fprintf(&b, "\n\nFlags (-name and --name are the same):\n%s\n", trimRight(cmd.LocalFlags().FlagUsagesWrapped(helpWidth)))
	}
	if cmd.HasAvailableInheritedFlags() {
		fmt.Fprintf(&b, "\nFlags of all verbs of %s:\n%s\n", cmd.Parent().Name(), trimRight(cmd.InheritedFlags().FlagUsagesWrapped(helpWidth)))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n\"%s VERB -h\" tells more about one.\n", cmd.CommandPath())
	}
	return b.String()
}

func trimRight(s string) string { return strings.TrimRightFunc(s, unicode.IsSpace) }
