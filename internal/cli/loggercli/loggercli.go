// Package loggercli owns what the logger verbs of the issuer's and the agent's
// clients share: levels as they are typed and printed. The verbs are each client's.
package loggercli

import (
	"fmt"
	"io"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Levels are SPIRE's, from the gravest on, as -level of "logger set" takes them;
// "warning" is taken for warn.
func Levels() []string {
	return []string{"panic", "fatal", "error", "warn", "info", "debug", "trace"}
}

// ParseLevel reads one of [Levels]. The error is one of usage, and names what
// was meant.
func ParseLevel(s string) (types.LogLevel, error) {
	name := strings.ToLower(s)
	if name == "warning" {
		name = "warn"
	}
	if n, ok := types.LogLevel_value[strings.ToUpper(name)]; ok && n != 0 {
		return types.LogLevel(n), nil
	}
	switch near := suggest.Closest(name, Levels()); {
	case s == "":
		return 0, cli.Usagef("-level is missing: %s", strings.Join(Levels(), ", "))
	case near != "":
		return 0, cli.Usagef("-level %q is unknown; did you mean %q?", s, near)
	default:
		return 0, cli.Usagef("-level %q is unknown; accepted: %s", s, strings.Join(Levels(), ", "))
	}
}

// Print prints the answer of a logger service, as SPIRE's verbs do.
func Print(w io.Writer, l *types.Logger) {
	fmt.Fprintf(w, "Logger Level : %s\nLaunch Level : %s\n\n", levelName(l.CurrentLevel), levelName(l.LaunchLevel))
}

func levelName(l types.LogLevel) string {
	if l == types.LogLevel_WARN {
		return "warning" // logrus' name
	}
	return strings.ToLower(l.String())
}
