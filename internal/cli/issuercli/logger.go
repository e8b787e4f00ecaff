package issuercli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/loggercli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/loggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func loggerGet(env *cli.Env) *cobra.Command {
	return loggerVerb(env, "get", "Show the log level, now and at the start", func(ctx context.Context, c loggerv1.LoggerClient) (*types.Logger, error) {
		return c.GetLogger(ctx, &loggerv1.GetLoggerRequest{})
	}).Command
}

func loggerReset(env *cli.Env) *cobra.Command {
	return loggerVerb(env, "reset", "Set the log level to what it was at the start", func(ctx context.Context, c loggerv1.LoggerClient) (*types.Logger, error) {
		return c.ResetLogLevel(ctx, &loggerv1.ResetLogLevelRequest{})
	}).Command
}

func loggerSet(env *cli.Env) *cobra.Command {
	var level string
	v := loggerVerb(env, "set", "Set the log level until the issuer ends or \"logger reset\"", func(ctx context.Context, c loggerv1.LoggerClient) (*types.Logger, error) {
		l, err := loggercli.ParseLevel(level)
		if err != nil {
			return nil, err
		}
		return c.SetLogLevel(ctx, &loggerv1.SetLogLevelRequest{NewLevel: l})
	})
	v.Example = "  lanyard issuer logger set -level debug"
	v.Flags().StringVar(&level, "level", "", "`"+strings.Join(loggercli.Levels(), "|")+"`")
	send := v.RunE
	v.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := loggercli.ParseLevel(level); err != nil {
			return err
		}
		return send(cmd, args)
	}
	return v.Command
}

func loggerVerb(env *cli.Env, name, short string, do func(context.Context, loggerv1.LoggerClient) (*types.Logger, error)) *verb {
	v := newVerb(env, name, short).withOutput()
	v.RunE = func(*cobra.Command, []string) error {
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			l, err := do(ctx, loggerv1.NewLoggerClient(cc))
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, l, func(w io.Writer) { loggercli.Print(w, l) })
		})
	}
	return v
}
