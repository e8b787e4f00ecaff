package serverapi

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthService is gRPC health on the admin socket: serving while there is a
// bundle to serve with.
type healthService struct {
	grpc_health_v1.UnimplementedHealthServer
	deps Deps
}

func (h *healthService) Check(_ context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if req.GetService() != "" {
		return nil, status.Error(codes.InvalidArgument, "per-service health is not supported")
	}
	state := grpc_health_v1.HealthCheckResponse_SERVING
	if len(h.deps.Registry.Bundle().GetX509Authorities()) == 0 {
		state = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return &grpc_health_v1.HealthCheckResponse{Status: state}, nil
}
