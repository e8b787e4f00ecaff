package adminapi

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/loglevel"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentloggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// loggerService is spire.api.agent.logger.v1.Logger: the level of the agent's
// log. Package loglevel says what SPIRE's levels are.
type loggerService struct {
	agentloggerv1.UnsafeLoggerServer
	operators *operators
	deps      Deps
}

// GetLogger tells the level, and what it was at the start.
func (s *loggerService) GetLogger(ctx context.Context, _ *agentloggerv1.GetLoggerRequest) (_ *types.Logger, err error) {
	defer s.deps.ended(agentloggerv1.Logger_GetLogger_FullMethodName, time.Now(), &err)
	if err := s.operators.check(ctx, agentloggerv1.Logger_GetLogger_FullMethodName); err != nil {
		return nil, err
	}
	return s.answer()
}

// SetLogLevel changes the level, until the agent stops.
func (s *loggerService) SetLogLevel(ctx context.Context, req *agentloggerv1.SetLogLevelRequest) (_ *types.Logger, err error) {
	defer s.deps.ended(agentloggerv1.Logger_SetLogLevel_FullMethodName, time.Now(), &err)
	if err := s.operators.check(ctx, agentloggerv1.Logger_SetLogLevel_FullMethodName); err != nil {
		return nil, err
	}
	if req.GetNewLevel() == types.LogLevel_UNSPECIFIED {
		return nil, status.Error(codes.InvalidArgument, "newLevel value cannot be LogLevel_UNSPECIFIED")
	}
	level, ok := loglevel.FromAPI(req.GetNewLevel())
	if !ok {
		return nil, status.Error(codes.InvalidArgument, "unsupported log level")
	}
	return s.set(level)
}

// ResetLogLevel goes back to the level of the start.
func (s *loggerService) ResetLogLevel(ctx context.Context, _ *agentloggerv1.ResetLogLevelRequest) (_ *types.Logger, err error) {
	defer s.deps.ended(agentloggerv1.Logger_ResetLogLevel_FullMethodName, time.Now(), &err)
	if err := s.operators.check(ctx, agentloggerv1.Logger_ResetLogLevel_FullMethodName); err != nil {
		return nil, err
	}
	return s.set(s.deps.LaunchLevel)
}

func (s *loggerService) set(level slog.Level) (*types.Logger, error) {
	if s.deps.Level == nil {
		return s.answer()
	}
	change := []any{"from", loglevel.ToAPI(s.deps.Level.Level()).String(), "to", loglevel.ToAPI(level).String()}
	// The change is in the log whichever way it goes: at the level that says
	// more of the two.
	if level > s.deps.Level.Level() {
		s.deps.Log.Info("log level changes", change...)
		s.deps.Level.Set(level)
	} else {
		s.deps.Level.Set(level)
		s.deps.Log.Info("log level changed", change...)
	}
	return s.answer()
}

func (s *loggerService) answer() (*types.Logger, error) {
	if s.deps.Level == nil {
		return nil, status.Error(codes.Unimplemented, "this agent's log level can't be changed while it runs")
	}
	return &types.Logger{CurrentLevel: loglevel.ToAPI(s.deps.Level.Level()), LaunchLevel: loglevel.ToAPI(s.deps.LaunchLevel)}, nil
}
