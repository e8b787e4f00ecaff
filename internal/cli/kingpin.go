package cli

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const kingpin = "grammar"

// Kingpin gives cmd, but not what is below it, the grammar of ghostunnel's command line beside that of all others: a flag that
// isn't repeatable is refused the second time, --no-NAME unsets a switch, a value that begins with a dash needs =, and @FILE
// stands for the lines of FILE, an argument each.
func Kingpin(cmd *cobra.Command) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[kingpin] = kingpin
	return cmd
}

// ManualVerb is the verb that --help-man stands for in ghostunnel's grammar.
const ManualVerb = "help-man"

// manualPath is the command line of that verb, the nearest one.
func (n *normalizer) manualPath() []string {
	for c := n.cmd; c != nil; c = c.Parent() {
		for _, verb := range c.Commands() {
			if verb.Name() == ManualVerb {
				return strings.Fields(verb.CommandPath())[1:]
			}
		}
	}
	return []string{"--help"}
}

func (n *normalizer) kingpin() bool { return n.cmd.Annotations[kingpin] != "" }

// kingpinValue takes a flag's value from the arguments after it.
func (n *normalizer) kingpinValue(typed string, rest []string) (value string, left []string, err error) {
	for len(rest) > 0 && strings.HasPrefix(rest[0], "@") {
		if rest, err = n.expand(rest[0], rest[1:]); err != nil {
			return "", nil, err
		}
	}
	switch {
	case len(rest) == 0:
		return "", nil, Usagef("expected argument for flag '%s'", typed)
	case len(rest[0]) > 1 && rest[0][0] == '-':
		return "", nil, Usagef("expected argument for flag '%s', got %s: write %s=VALUE for a value that begins with a dash", typed, rest[0], typed)
	}
	return rest[0], rest[1:], nil
}

// Bounds of argument files: how many may be read, one naming the next included, and how large each may be, in bytes.
const (
	maxArgFiles = 32
	maxArgFile  = 1 << 20
)

// expand puts the lines of the file that arg, @FILE, names before rest. Empty lines and those that begin with # don't count.
func (n *normalizer) expand(arg string, rest []string) ([]string, error) {
	path := arg[1:]
	if n.expanded++; n.expanded > maxArgFiles {
		return nil, Usagef("argument %s: more than %d files of arguments: does one name itself?", arg, maxArgFiles)
	}
	if path == "" {
		return nil, Usagef("expected @ file to expand arguments from")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, Usagef("argument %s: the file of arguments can't be read: %v", arg, errors.Unwrap(err))
	}
	defer f.Close()
	var lines []string
	scanner := bufio.NewScanner(io.LimitReader(f, maxArgFile+1))
	size := 0
	for scanner.Scan() {
		line := scanner.Text()
		if size += len(line) + 1; size > maxArgFile {
			return nil, Usagef("argument %s: the file has more than %d MiB: this is no file of arguments", arg, maxArgFile>>20)
		}
		if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, Usagef("argument %s: the file of arguments can't be read: %v", arg, err)
	}
	return append(lines, rest...), nil
}

// kingpinWord refuses a word that is no command, in ghostunnel's words.
func kingpinWord(cmd *cobra.Command, arg string) error {
	if cmd.HasSubCommands() {
		return Usagef("expected command but got %q", arg)
	}
	return Usagef("unexpected %s", arg)
}

// keepsFlags refuses flags that stood before a verb that hasn't them.
func (n *normalizer) keepsFlags() error {
	for name := range n.seen {
		if n.lookup(name) == nil {
			return n.unknownFlag("--"+name, name)
		}
	}
	return nil
}

// afterDashes refuses what stands after -- where nothing may.
func (n *normalizer) afterDashes(args []string) error {
	if len(args) == 0 || n.cmd.Args != nil || n.cmd.HasSubCommands() {
		return nil
	}
	return n.word(args[0])
}

func isBool(f *pflag.Flag) bool { return f != nil && f.Value.Type() == "bool" }
