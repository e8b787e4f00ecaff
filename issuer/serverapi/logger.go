package serverapi

import (
	"context"
	"log/slog"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/loglevel"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/loggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// LoggerService is spire.api.server.logger.v1.Logger: the level of this issuer's
// log. Package loglevel says what SPIRE's levels are.
type LoggerService struct {
	loggerv1.UnsafeLoggerServer
	deps Deps
}

// NewLoggerService returns the service.
func NewLoggerService(d Deps) *LoggerService {
	d.setDefaults()
	return &LoggerService{deps: d}
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
	level, ok := loglevel.FromAPI(req.GetNewLevel())
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
	annotate(ctx, slog.String("new_level", loglevel.ToAPI(level).String()))
	if s.deps.Level != nil {
		// Told before and after, so that the change is in the log whichever way.
		s.deps.Log.Info("log level changes", "from", loglevel.ToAPI(s.deps.Level.Level()).String(), "to", loglevel.ToAPI(level).String())
		s.deps.Level.Set(level)
	}
	return s.answer()
}

func (s *LoggerService) answer() (*types.Logger, error) {
	if s.deps.Level == nil {
		return nil, unimplemented("changing the log level")
	}
	return &types.Logger{CurrentLevel: loglevel.ToAPI(s.deps.Level.Level()), LaunchLevel: loglevel.ToAPI(s.deps.LaunchLevel)}, nil
}
