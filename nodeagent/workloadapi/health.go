package workloadapi

import (
	"context"
	"errors"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Health is gRPC health as spire-agent has it on its public socket: serving is an
// agent whose Workload API answers the agent's own process, be it with a refusal.
type Health struct {
	healthpb.UnimplementedHealthServer

	service  *Service
	self     func(ctx context.Context) (workloadattest.Result, error)
	disabled bool
}

// NewHealth returns the health of s. attest attests a process by its number. An
// agent whose Workload API is disabled is always serving.
func (s *Service) NewHealth(attest func(ctx context.Context, pid int) (workloadattest.Result, workloadattest.ProcessInfo, error), disabled bool) *Health {
	return &Health{service: s, disabled: disabled, self: func(ctx context.Context) (workloadattest.Result, error) {
		result, _, err := attest(ctx, os.Getpid())
		return result, err
	}}
}

// Check is whether the agent serves now.
func (h *Health) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if req.GetService() != "" {
		return nil, status.Error(codes.InvalidArgument, "per-service health is not supported")
	}
	state := healthpb.HealthCheckResponse_SERVING
	if err := h.check(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		h.service.refusal.warn("health check", "health check failed", "reason", err)
		state = healthpb.HealthCheckResponse_NOT_SERVING
	}
	return &healthpb.HealthCheckResponse{Status: state}, nil
}

// check does what a call of FetchX509SVID does. An attestor that fails does not
// count: that is not mended by starting the agent again, as health checks do.
func (h *Health) check(ctx context.Context) error {
	if h.disabled {
		return nil
	}
	if h.service.cfg.Stopping.Err() != nil {
		return errStopping
	}
	result, err := h.self(ctx)
	if err != nil {
		return err
	}
	sub := h.service.cfg.Cache.Subscribe(svidcache.Caller{Selectors: result.Selectors})
	defer sub.Close()
	if _, err := sub.Answer(ctx); !errors.Is(err, svidcache.ErrNoIdentity) {
		return err
	}
	return nil
}

// Watch tells whether the agent is in sync with its issuer, or was once, now and
// when that changes. It ends when the agent stops.
func (h *Health) Watch(req *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	if req.GetService() != "" {
		return stream.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVICE_UNKNOWN})
	}
	synced := h.service.cfg.Cache.Synced()
	if !h.disabled && !closed(synced) {
		if err := stream.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}); err != nil {
			return err
		}
		if err := h.wait(stream.Context(), synced); err != nil {
			return err
		}
	}
	if err := stream.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}); err != nil {
		return err
	}
	return h.wait(stream.Context(), nil)
}

// closed reports whether c is.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (h *Health) wait(ctx context.Context, until <-chan struct{}) error {
	select {
	case <-until:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-h.service.cfg.Stopping.Done():
		return status.Error(codes.Unavailable, errStopping.Error())
	}
}
