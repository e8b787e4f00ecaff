package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// completionVerb is the verb that prints the script for a shell.
func completionVerb(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the script that completes command lines in a shell",
		Long: `Print the script that completes verbs, flags and their values in a shell. It asks the program itself, and nothing of the
network.`,
		Example: `  source <(lanyard completion bash)                                           # this shell
  lanyard completion bash > /etc/bash_completion.d/lanyard                    # with the package bash-completion, all
  lanyard completion zsh > "${fpath[1]}/_lanyard"
  lanyard completion fish > ~/.config/fish/completions/lanyard.fish`,
		Args:      cobra.ArbitraryArgs, // told better here than by cobra
		ValidArgs: shells(),
		// ghostunnel's command line has a flag for it, and SPIRE's have nothing of the kind.
		Hidden:                env.Dialect != Lanyard,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return Usagef("%s wants one shell: bash, zsh or fish", cmd.CommandPath())
			}
			switch root, w := cmd.Root(), env.Stdout; args[0] {
			case "bash":
				_, err := io.WriteString(w, bashScript(root.Name()))
				return err
			case "zsh":
				return root.GenZshCompletion(w)
			case "fish":
				return root.GenFishCompletion(w, true)
			}
			return Usagef("shell %q is unknown; accepted: bash, zsh, fish", args[0])
		},
	}
}

func shells() []string { return []string{"bash", "zsh", "fish"} }
