package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
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
