package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const notYet = "not-yet"

// NotYet tells cmd which verbs SPIRE has below it and Lanyard has not yet, for a message of their own.
func NotYet(cmd *cobra.Command, verbs ...string) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[notYet] = strings.Join(verbs, " ")
	return cmd
}

func isNotYet(cmd *cobra.Command, verb string) bool {
	return slices.Contains(strings.Fields(cmd.Annotations[notYet]), verb)
}

// NotYetFlags is NotYet for flags.
func NotYetFlags(cmd *cobra.Command, whose string, names ...string) {
	for _, name := range names {
		cmd.PersistentFlags().Var(&missing{name: name, whose: whose}, name, "not supported yet")
		f := cmd.PersistentFlags().Lookup(name)
		f.Hidden = true
	}
}

// missing is a flag that says so when it is set.
type missing struct{ name, whose string }

func (m *missing) String() string { return "" }
func (m *missing) Type() string   { return "missing" }

// Set implements pflag.Value.
func (m *missing) Set(string) error { return m.err() }

func (m *missing) err() error {
	return Usagef("--%s: known to %s, not supported yet; remove it", m.name, m.whose)
}

// Alias gives a flag a second, hidden name.
func Alias(fs *pflag.FlagSet, name, alias string) {
	f := *fs.Lookup(name)
	f.Name, f.Hidden = alias, true
	fs.AddFlag(&f)
}
