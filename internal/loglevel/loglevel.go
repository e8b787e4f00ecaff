// Package loglevel owns what SPIRE's log levels are among slog's: SPIRE's logger
// services have seven to slog's four, and those between and beyond have places of
// their own here, so that what was set is what is told. It sets no level.
package loglevel

import (
	"log/slog"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// The levels that slog has no name for.
const (
	trace  = slog.LevelDebug - 4
	fatal  = slog.LevelError + 4
	panics = slog.LevelError + 8
)

// FromAPI returns the level of that name; not ok where there is none.
func FromAPI(level types.LogLevel) (slog.Level, bool) {
	switch level {
	case types.LogLevel_PANIC:
		return panics, true
	case types.LogLevel_FATAL:
		return fatal, true
	case types.LogLevel_ERROR:
		return slog.LevelError, true
	case types.LogLevel_WARN:
		return slog.LevelWarn, true
	case types.LogLevel_INFO:
		return slog.LevelInfo, true
	case types.LogLevel_DEBUG:
		return slog.LevelDebug, true
	case types.LogLevel_TRACE:
		return trace, true
	}
	return 0, false
}

// ToAPI returns the name of the level, or of the next one that says more.
func ToAPI(level slog.Level) types.LogLevel {
	switch {
	case level < slog.LevelDebug:
		return types.LogLevel_TRACE
	case level < slog.LevelInfo:
		return types.LogLevel_DEBUG
	case level < slog.LevelWarn:
		return types.LogLevel_INFO
	case level < slog.LevelError:
		return types.LogLevel_WARN
	case level < fatal:
		return types.LogLevel_ERROR
	case level < panics:
		return types.LogLevel_FATAL
	}
	return types.LogLevel_PANIC
}
