package serverapi

import (
	"context"
	"log/slog"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/loggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// LoggerService is spire.api.server.logger.v1.Logger: the level of this issuer's
// log. SPIRE has seven levels to slog's four; those between and beyond them have
// places of their own here, so that what was set is what is told.
type LoggerService struct {
	loggerv1.UnsafeLoggerServer
	deps Deps
}

// NewLoggerService returns the service.
func NewLoggerService(d Deps) *LoggerService {
	d.setDefaults()
	return &LoggerService{deps: d}
}

// The levels that slog has no name for.
const (
	levelTrace = slog.LevelDebug - 4
	levelFatal = slog.LevelError + 4
	levelPanic = slog.LevelError + 8
)

// slogLevel is the level of that name; not ok where there is none.
func slogLevel(level types.LogLevel) (slog.Level, bool) {
	switch level {
	case types.LogLevel_PANIC:
		return levelPanic, true
	case types.LogLevel_FATAL:
		return levelFatal, true
	case types.LogLevel_ERROR:
		return slog.LevelError, true
	case types.LogLevel_WARN:
		return slog.LevelWarn, true
	case types.LogLevel_INFO:
		return slog.LevelInfo, true
	case types.LogLevel_DEBUG:
		return slog.LevelDebug, true
	case types.LogLevel_TRACE:
		return levelTrace, true
	}
	return 0, false
}

// apiLevel is the name of the level, or of the next one that says more.
func apiLevel(level slog.Level) types.LogLevel {
	switch {
	case level < slog.LevelDebug:
		return types.LogLevel_TRACE
	case level < slog.LevelInfo:
		return types.LogLevel_DEBUG
	case level < slog.LevelWarn:
		return types.LogLevel_INFO
	case level < slog.LevelError:
		return types.LogLevel_WARN
	case level < levelFatal:
		return types.LogLevel_ERROR
	case level < levelPanic:
		return types.LogLevel_FATAL
	}
	return types.LogLevel_PANIC
}

// GetLogger tells the level, and what it was at the start.
func (s *LoggerService) GetLogger(context.Context, *loggerv1.GetLoggerRequest) (*types.Logger, error) {
	return s.answer()
}

// SetLogLevel changes the level, until the issuer stops.
func (s *LoggerService) SetLogLevel(ctx context.Context, req *loggerv1.SetLogLevelRequest) (*types.Logger, error) {
	if req.GetNewLevel() == types.LogLevel_UNSPECIFIED {
		return nil, statusError(codes.InvalidArgument, "newLevel value cannot be LogLevel_UNSPECIFIED", nil)
	}
	level, ok := slogLevel(req.GetNewLevel())
	if !ok {
		return nil, statusError(codes.InvalidArgument, "unsupported log level", nil)
	}
	return s.set(ctx, level)
}

// ResetLogLevel goes back to the level of the start.
func (s *LoggerService) ResetLogLevel(ctx context.Context, _ *loggerv1.ResetLogLevelRequest) (*types.Logger, error) {
	return s.set(ctx, s.deps.LaunchLevel)
}

func (s *LoggerService) set(ctx context.Context, level slog.Level) (*types.Logger, error) {
	annotate(ctx, slog.String("new_level", apiLevel(level).String()))
	if s.deps.Level != nil {
		// Told before and after, so that the change is in the log whichever way.
		s.deps.Log.Info("log level changes", "from", apiLevel(s.deps.Level.Level()).String(), "to", apiLevel(level).String())
		s.deps.Level.Set(level)
	}
	return s.answer()
}

func (s *LoggerService) answer() (*types.Logger, error) {
	if s.deps.Level == nil {
		return nil, unimplemented("changing the log level")
	}
	return &types.Logger{CurrentLevel: apiLevel(s.deps.Level.Level()), LaunchLevel: apiLevel(s.deps.LaunchLevel)}, nil
}
