package serverapi

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthService is gRPC health on the admin socket: serving while the issuer can
// issue.
type healthService struct {
	grpc_health_v1.UnimplementedHealthServer
	deps Deps
}

func (h *healthService) Check(ctx context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if req.GetService() != "" {
		return nil, status.Error(codes.InvalidArgument, "per-service health is not supported")
	}
	check := h.deps.Healthy
	if check == nil {
		check = h.deps.canIssue
	}
	state := grpc_health_v1.HealthCheckResponse_SERVING
	if err := check(ctx); err != nil {
		h.deps.Log.WarnContext(ctx, "health check failed", "error", err)
		state = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return &grpc_health_v1.HealthCheckResponse{Status: state}, nil
}

// canIssue reports why nobody could be issued, and use, an SVID now.
func (d *Deps) canIssue(context.Context) error {
	if len(d.Registry.Bundle().GetX509Authorities()) == 0 {
		return errors.New("the bundle is empty")
	}
	_, err := d.CA.X509State()
	return err
}
