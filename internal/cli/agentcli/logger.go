package agentcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/loggercli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentloggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func loggerGet(env *cli.Env) *cobra.Command {
	return loggerVerb(env, "get", "Show the log level, now and at the start", "error fetching logger", func(ctx context.Context, c agentloggerv1.LoggerClient) (*types.Logger, error) {
		return c.GetLogger(ctx, &agentloggerv1.GetLoggerRequest{})
	}).Command
}

func loggerReset(env *cli.Env) *cobra.Command {
	return loggerVerb(env, "reset", "Set the log level to what it was at the start", "failed to reset logger", func(ctx context.Context, c agentloggerv1.LoggerClient) (*types.Logger, error) {
		return c.ResetLogLevel(ctx, &agentloggerv1.ResetLogLevelRequest{})
	}).Command
}

func loggerSet(env *cli.Env) *cobra.Command {
	var level string
	v := loggerVerb(env, "set", "Set the log level until the agent ends or \"logger reset\"", "failed to set log level", func(ctx context.Context, c agentloggerv1.LoggerClient) (*types.Logger, error) {
		l, err := loggercli.ParseLevel(level)
		if err != nil {
			return nil, err
		}
		return c.SetLogLevel(ctx, &agentloggerv1.SetLogLevelRequest{NewLevel: l})
	})
	v.Example = "  lanyard agent logger set -level debug"
	v.Flags().StringVar(&level, "level", "", "`"+strings.Join(loggercli.Levels(), "|")+"`")
	send := v.RunE
	v.RunE = func(cmd *cobra.Command, args []string) error {
		_, err := loggercli.ParseLevel(level)
		switch spire := env.Dialect == cli.SPIREAgent; {
		case err == nil:
			return send(cmd, args)
		case spire && level == "":
			return errors.New("a value (-level) must be set")
		case spire:
			return fmt.Errorf("the value %q is not a valid setting", level)
		}
		return err
	}
	return v.Command
}

// loggerVerb is one that answers with the levels; failed is what spire-agent says where it doesn't.
func loggerVerb(env *cli.Env, name, short, failed string, do func(context.Context, agentloggerv1.LoggerClient) (*types.Logger, error)) *adminVerb {
	v := newAdminVerb(env, name, short)
	v.RunE = spireErrors(env, "Error: "+failed+": ", func() error {
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			l, err := do(ctx, agentloggerv1.NewLoggerClient(cc))
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, l, func(w io.Writer) { loggercli.Print(w, l) })
		})
	})
	return v
}
