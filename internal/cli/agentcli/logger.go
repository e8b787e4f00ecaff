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
	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
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
		l, err := parseLevel(level)
		if err != nil {
			return nil, err
		}
		return c.SetLogLevel(ctx, &agentloggerv1.SetLogLevelRequest{NewLevel: l})
	})
	v.Example = "  lanyard agent logger set -level debug"
	v.Flags().StringVar(&level, "level", "", "`"+strings.Join(levels(), "|")+"`")
	send := v.RunE
	v.RunE = func(cmd *cobra.Command, args []string) error {
		_, err := parseLevel(level)
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
			return v.out.Proto(env.Stdout, l, func(w io.Writer) {
				fmt.Fprintf(w, "Logger Level : %s\nLaunch Level : %s\n\n", levelName(l.CurrentLevel), levelName(l.LaunchLevel))
			})
		})
	})
	return v
}

// levels are SPIRE's, from the gravest on; "warning" is taken for warn.
func levels() []string {
	return []string{"panic", "fatal", "error", "warn", "info", "debug", "trace"}
}

func levelName(l types.LogLevel) string {
	if l == types.LogLevel_WARN {
		return "warning" // logrus' name
	}
	return strings.ToLower(l.String())
}

func parseLevel(s string) (types.LogLevel, error) {
	name := strings.ToLower(s)
	if name == "warning" {
		name = "warn"
	}
	if n, ok := types.LogLevel_value[strings.ToUpper(name)]; ok && n != 0 {
		return types.LogLevel(n), nil
	}
	switch near := suggest.Closest(name, levels()); {
	case s == "":
		return 0, cli.Usagef("-level is missing: %s", strings.Join(levels(), ", "))
	case near != "":
		return 0, cli.Usagef("-level %q is unknown; did you mean %q?", s, near)
	default:
		return 0, cli.Usagef("-level %q is unknown; accepted: %s", s, strings.Join(levels(), ", "))
	}
}
