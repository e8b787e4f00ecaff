// Package telemetry owns how a process logs: the level, the format and where it goes. What is logged is each role's
// business.
package telemetry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
)

// Config says how to log. The zero Config logs text at INFO.
type Config struct {
	Level  string // see ParseLevel; "" is INFO
	Format string // "text" or "json"; "" is text
	File   string // appended to, made 0640 if absent; "" logs to the writer Open is given
	Syslog string // a tag: logs to the local syslog daemon under it, as facility DAEMON, and not to the writer Open is given
	// SyslogSocket is where that daemon listens; "" for where it usually does.
	SyslogSocket string
	Source       bool // each line with file and line of the code that logs
	// Var, if not nil, is set to Level, and is the level from then on: whoever has it may change it while the log is used.
	Var *slog.LevelVar
}

// Open makes the logger. Lines go to cfg.File, to syslog, or to w. Close the closer when nothing logs any more. That of a log
// in a file is a *[File].
func Open(cfg Config, w io.Writer) (*slog.Logger, io.Closer, error) {
	level, levelErr := ParseLevel(cfg.Level)
	if err := errors.Join(levelErr, checkFormat(cfg.Format)); err != nil {
		return nil, nil, err
	}
	opts := &slog.HandlerOptions{Level: level, AddSource: cfg.Source, ReplaceAttr: levelName}
	if cfg.Var != nil {
		cfg.Var.Set(level)
		opts.Level = cfg.Var
	}
	if cfg.Syslog != "" {
		return openSyslogLog(cfg, opts)
	}
	var closer io.Closer = io.NopCloser(nil)
	if cfg.File != "" {
		f, err := OpenFile(cfg.File)
		if err != nil {
			return nil, nil, fmt.Errorf("log file: %w", err)
		}
		w, closer = f, f
	}
	return slog.New(handler(w, cfg.Format, opts)), closer, nil
}

// NewLogger makes a logger to w; see Config for level and format.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	log, _, err := Open(Config{Level: level, Format: format}, w)
	return log, err
}

// Check says whether Open would take level and format, without opening anything.
func Check(level, format string) error {
	_, err := ParseLevel(level)
	return errors.Join(err, checkFormat(format))
}

// Levels below and above slog's own, for SPIRE's names.
const (
	levelTrace = slog.LevelDebug - 4
	levelFatal = slog.LevelError + 4
)

// ParseLevel reads a level by SPIRE's names, in any case: trace, debug, info, warn or warning, error, fatal, panic. Nothing
// logs at fatal and panic, so they silence all. "" is info.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "trace":
		return levelTrace, nil
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "fatal", "panic":
		return levelFatal, nil
	}
	return 0, fmt.Errorf("log level %q is unknown%s", s, oneOf(s, "debug", "info", "warn", "error", "trace"))
}

func checkFormat(s string) error {
	switch strings.ToLower(s) {
	case "", "text", "json":
		return nil
	}
	return fmt.Errorf("log format %q is unknown%s", s, oneOf(s, "text", "json"))
}

func oneOf(got string, names ...string) string {
	if near := suggest.Closest(got, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; accepted: " + strings.Join(names, ", ")
}

func handler(w io.Writer, format string, opts *slog.HandlerOptions) slog.Handler {
	switch {
	case strings.EqualFold(format, "json"):
		return slog.NewJSONHandler(w, opts)
	case isTerminal(w):
		return newTerminal(w, opts)
	default:
		return slog.NewTextHandler(w, opts)
	}
}

// levelName gives the levels outside slog's four a name of their own.
func levelName(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey && a.Value.Any() == levelTrace {
		return slog.String(slog.LevelKey, "TRACE")
	}
	return a
}
