package agentcli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// spireErrors has errors look as spire-agent's do where the program has that name: scripts look for "rpc error: code =
// PermissionDenied desc = no identity issued". prefix stands before them there.
func spireErrors(env *cli.Env, prefix string, run func() error) func(*cobra.Command, []string) error {
	return func(*cobra.Command, []string) error {
		err := run()
		if err == nil || env.Dialect != cli.SPIREAgent || errors.Is(err, cli.Printed()) {
			return err
		}
		fmt.Fprintf(env.Stderr, "%s%s\n", prefix, cli.Harmless([]byte(spireText(err))))
		return errors.Join(cli.Printed(), err) // with its hints
	}
}

// spireText is err with gRPC's own words for a status.
func spireText(err error) string {
	if s, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		return s.GRPCStatus().Err().Error()
	}
	return err.Error()
}
