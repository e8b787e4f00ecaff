package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completer finds what may follow on a command line, in either style of flags. It knows only what the program itself knows:
// nothing is asked of the network, and no socket or file is opened.
type completer struct {
	n    normalizer
	word string // what is being typed
}

// candidates are what may follow; how is for the shell's script, which is cobra's.
type candidates struct {
	list []string // "name\tdescription"
	how  cobra.ShellCompDirective
}

// complete answers the script of a shell: args are the words after the program's name, the last one in the typing.
func complete(env *Env, root *cobra.Command, args []string, described bool) error {
	c := completer{n: normalizer{env: env, cmd: root, seen: map[string]bool{}}}
	var words []string
	if len(args) > 0 {
		words, c.word = args[:len(args)-1], args[len(args)-1]
	}
	found := c.after(words)
	var b strings.Builder
	for _, line := range found.list {
		if !described {
			line, _, _ = strings.Cut(line, "\t")
		}
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintf(&b, ":%d\n", found.how)
	_, err := io.WriteString(env.Stdout, b.String())
	return err
}

// after goes through the words before the one that is being typed.
func (c *completer) after(words []string) candidates {
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch {
		case word == "--":
			return candidates{how: cobra.ShellCompDirectiveDefault} // another program's command line
		case len(word) < 2 || word[0] != '-':
			if c.n.word(word) != nil {
				return candidates{how: cobra.ShellCompDirectiveNoFileComp}
			}
			continue
		}
		typed, _, hasValue := strings.Cut(word, "=")
		f := c.n.lookup(strings.TrimLeft(typed, "-"))
		if f == nil {
			continue
		}
		c.n.seen[f.Name] = true
		if hasValue || f.NoOptDefVal != "" {
			continue
		}
		if len(words) == 0 {
			return values(f, "", c.word)
		}
		words = words[1:]
	}
	return c.next()
}

// next gives what may stand where the cursor is, when no flag waits for its value.
func (c *completer) next() candidates {
	cmd := c.n.cmd
	typed, value, hasValue := strings.Cut(c.word, "=")
	switch {
	case strings.HasPrefix(c.word, "-") && hasValue:
		if f := c.n.lookup(strings.TrimLeft(typed, "-")); f != nil {
			return values(f, typed+"=", value)
		}
		return candidates{how: cobra.ShellCompDirectiveNoFileComp}
	case strings.HasPrefix(c.word, "-"):
		return c.flags()
	case cmd.HasAvailableSubCommands():
		return c.verbs()
	case len(cmd.ValidArgs) > 0:
		return c.matching(cmd.ValidArgs)
	case cmd.Args != nil && cmd.HasParent():
		return candidates{how: cobra.ShellCompDirectiveDefault}
	}
	return c.flags() // nothing else is possible
}

func (c *completer) verbs() candidates {
	var list []string
	for _, sub := range c.n.cmd.Commands() {
		if sub.IsAvailableCommand() || sub.Name() == "help" {
			list = append(list, sub.Name()+"\t"+sub.Short)
		}
	}
	return c.matching(list)
}

// flags are written as SPIRE writes them, with one dash, unless two were typed or the verb is ghostunnel's.
func (c *completer) flags() candidates {
	dash := "-"
	if strings.HasPrefix(c.word, "--") || c.n.kingpin() {
		dash = "--"
	}
	var list []string
	add := func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" && (!c.n.seen[f.Name] || repeatable(f)) {
			_, usage := pflag.UnquoteUsage(f)
			list = append(list, dash+f.Name+"\t"+usage)
		}
	}
	c.n.cmd.InheritedFlags() // merges the parents' into Flags
	c.n.cmd.Flags().VisitAll(add)
	if dash == "--" && c.word == "-" {
		c.word = ""
	}
	return c.matching(list)
}

// matching keeps what begins with the word.
func (c *completer) matching(list []string) candidates {
	return candidates{
		list: slices.DeleteFunc(list, func(s string) bool { return !strings.HasPrefix(s, c.word) }),
		how:  cobra.ShellCompDirectiveNoFileComp,
	}
}

// values gives the values of a flag: those it accepts, or files where it names one. prefix stands before each.
func values(f *pflag.Flag, prefix, word string) candidates {
	what, _ := pflag.UnquoteUsage(f)
	accepts := strings.Split(what, "|")
	if strings.Contains(f.Value.Type(), "|") {
		accepts = strings.Split(f.Value.Type(), "|")
	}
	switch {
	case f.Value.Type() == "bool":
		accepts = []string{"true", "false"}
	case len(accepts) > 1:
	case strings.Contains(what, "DIR"):
		return candidates{how: cobra.ShellCompDirectiveFilterDirs}
	case strings.Contains(what, "FILE") || strings.Contains(what, "PATH") || strings.Contains(what, "SOCKET"):
		return candidates{how: cobra.ShellCompDirectiveDefault}
	default:
		accepts = nil
	}
	var list []string
	for _, a := range accepts {
		if strings.HasPrefix(a, word) {
			list = append(list, prefix+a)
		}
	}
	return candidates{list, cobra.ShellCompDirectiveNoFileComp}
}
