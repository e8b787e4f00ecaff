package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
)

// normalize turns a command line in SPIRE's style (-spiffeID x, -node=true), in ghostunnel's (--listen x, before or after the
// verb) or a mix into the one cobra reads: --name=value, --name. It knows the flags of the verb, so that a value may begin
// with a dash. What stands after -- is left alone. On error, cmd is the verb as far as it was understood.
func normalize(env *Env, root *cobra.Command, args []string) (cmd *cobra.Command, out []string, err error) {
	n := normalizer{env: env, cmd: root, seen: map[string]bool{}}
	for len(args) > 0 && err == nil {
		arg := args[0]
		args = args[1:]
		switch {
		case n.kingpin() && strings.HasPrefix(arg, "@"):
			args, err = n.expand(arg, args)
		case arg == "--":
			err = n.afterDashes(args)
			out = append(append(out, arg), args...)
			args = nil
		case len(arg) > 1 && arg[0] == '-':
			var norm string
			norm, args, err = n.flag(arg, args)
			out = append(out, norm)
		default:
			err = n.word(arg)
			out = append(out, arg)
		}
	}
	switch {
	case err != nil:
	case n.version:
		return n.cmd, []string{"--version"}, nil
	case n.manual:
		return n.cmd, n.manualPath(), nil
	default:
		err = n.complete()
	}
	return n.cmd, out, err
}

type normalizer struct {
	env      *Env
	cmd      *cobra.Command
	help     bool
	version  bool
	manual   bool
	topics   *cobra.Command  // what help was asked about so far
	seen     map[string]bool // flags, by name
	expanded int             // files of arguments read
}

// word takes an argument that is no flag: a verb, or an argument of one.
func (n *normalizer) word(arg string) error {
	if n.cmd.Name() == "help" { // of a verb, named from here on
		topics := normalizer{env: n.env, cmd: n.cmd.Parent()}
		if n.topics != nil {
			topics.cmd = n.topics
		}
		err := topics.word(arg)
		n.topics = topics.cmd
		return err
	}
	var names []string
	for _, c := range n.cmd.Commands() {
		if c.Name() == arg || c.HasAlias(arg) {
			n.cmd = c
			return n.keepsFlags()
		}
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	switch {
	case n.kingpin() && n.env.Dialect == Ghostunnel:
		return kingpinWord(n.cmd, arg)
	case isNotYet(n.cmd, arg):
		return Usagef("%s %s: known to SPIRE, not supported yet", n.cmd.CommandPath(), arg)
	case n.cmd.HasSubCommands():
		if near := suggest.Closest(arg, names); near != "" {
			return Usagef("unknown verb %q of %s; did you mean %q?", arg, n.cmd.CommandPath(), near)
		}
		return Usagef("unknown verb %q of %s; it has: %s", arg, n.cmd.CommandPath(), strings.Join(names, ", "))
	case n.cmd.Args == nil:
		return Usagef("unexpected argument %q of %s: flags begin with a dash", arg, n.cmd.CommandPath())
	}
	return nil
}

// flag takes one that begins with a dash, and its value.
func (n *normalizer) flag(arg string, rest []string) (string, []string, error) {
	typed, value, hasValue := strings.Cut(arg, "=")
	name := strings.TrimPrefix(strings.TrimPrefix(typed, "-"), "-")
	f := n.lookup(name)
	switch {
	case f != nil:
	case name == "h" || name == "help" || name == "help-long":
		n.help = true
		return "--help", rest, nil
	case n.kingpin() && (name == "help-man" || name == "help-custom-man"):
		n.help, n.manual = true, true
		return "", rest, nil
	case name == "version" && (n.cmd.Version != "" || n.kingpin()):
		n.help, n.version = true, true
		return "--version", rest, nil
	case n.kingpin() && !hasValue && isBool(n.lookup(strings.TrimPrefix(name, "no-"))):
		name, value, hasValue = strings.TrimPrefix(name, "no-"), "false", true
		f = n.lookup(name)
	default:
		return "", nil, n.unknownFlag(typed, name)
	}
	if gone, ok := f.Value.(*missing); ok {
		return "", nil, gone.err()
	}
	if n.seen[f.Name] && n.kingpin() && !repeatable(f) {
		return "", nil, Usagef("flag '%s' cannot be repeated", f.Name)
	}
	n.seen[f.Name] = true
	switch {
	case hasValue:
	case f.NoOptDefVal != "":
		return "--" + f.Name, rest, nil
	case n.kingpin():
		var err error
		if value, rest, err = n.kingpinValue(typed, rest); err != nil {
			return "", nil, err
		}
	case len(rest) == 0:
		return "", nil, Usagef("flag %s needs a value", typed)
	default:
		value, rest = rest[0], rest[1:]
	}
	return "--" + f.Name + "=" + value, rest, nil
}

func (n *normalizer) lookup(name string) *pflag.Flag {
	n.cmd.InheritedFlags() // merges the parents' into Flags
	if f := n.cmd.Flags().Lookup(name); f != nil {
		return f
	}
	return n.cmd.PersistentFlags().Lookup(name)
}

func repeatable(f *pflag.Flag) bool {
	_, ok := f.Value.(pflag.SliceValue)
	return ok
}

func (n *normalizer) unknownFlag(typed, name string) error {
	var names []string
	n.cmd.InheritedFlags()
	n.cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	dashes := typed[:len(typed)-len(name)]
	switch near := suggest.Closest(name, names); {
	case n.env.Dialect == Ghostunnel && len(dashes) == 2:
		return Usagef("unknown long flag '%s'", typed)
	case near != "":
		return Usagef("unknown flag %s of %s; did you mean %s%s?", typed, n.cmd.CommandPath(), dashes, near)
	case len(names) == 0:
		return Usagef("unknown flag %s of %s: it has none here", typed, n.cmd.CommandPath())
	default:
		return Usagef("unknown flag %s of %s; \"%s -h\" lists its flags", typed, n.cmd.CommandPath(), n.cmd.CommandPath())
	}
}

// complete refuses a command line that ends before its verb does.
func (n *normalizer) complete() error {
	if n.help || n.cmd.Runnable() || !n.cmd.HasParent() {
		return nil
	}
	var names []string
	for _, c := range n.cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	slices.Sort(names)
	return Usagef("%s needs a verb: %s", n.cmd.CommandPath(), strings.Join(names, ", "))
}

// flagError words what pflag found wrong with a value.
func flagError(cmd *cobra.Command, err error) error {
	invalid, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return Usagef("%v", err)
	}
	f := invalid.GetFlag()
	name := "flag -" + f.Name
	if cmd.Annotations[kingpin] != "" {
		name = "--" + f.Name
	}
	want := ""
	switch f.Value.Type() {
	case "int", "int32", "int64", "uint32":
		want = "want a whole number"
	case "duration":
		want = "want a duration with a unit, like 90s, 10m or 24h"
	case "bool":
		want = "want true or false"
	default:
		return Usagef("%s: %v", name, errors.Unwrap(invalid))
	}
	return Usagef("%s: %s, got %q", name, want, invalid.GetValue())
}

// Strings is a flag that may be given more than once; unlike pflag's, a comma in its value is a comma.
type Strings []string

var _ pflag.SliceValue = (*Strings)(nil)

func (s *Strings) String() string           { return strings.Join(*s, " ") }
func (s *Strings) Type() string             { return "string" }
func (s *Strings) Set(v string) error       { *s = append(*s, v); return nil }
func (s *Strings) Append(v string) error    { return s.Set(v) }
func (s *Strings) Replace(v []string) error { *s = v; return nil }
func (s *Strings) GetSlice() []string       { return *s }

// Choice is a flag with a few possible values.
type Choice struct {
	Value   string
	Accepts []string
}

func (c *Choice) String() string { return c.Value }
func (c *Choice) Type() string   { return strings.Join(c.Accepts, "|") }

// Set implements pflag.Value.
func (c *Choice) Set(v string) error {
	if !slices.Contains(c.Accepts, v) {
		if near := suggest.Closest(v, c.Accepts); near != "" {
			return fmt.Errorf("%q is unknown; did you mean %q?", v, near)
		}
		return fmt.Errorf("%q is unknown; accepted: %s", v, strings.Join(c.Accepts, ", "))
	}
	c.Value = v
	return nil
}
