package workloadapi

import (
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
)

// RegisterEndpoint registers what a Workload Endpoint has beside its services:
// health, and reflection (v1 and v1alpha), by which clients learn which services
// there are (SPIFFE Workload Endpoint, section 7). It comes last.
//
// Reflection asks for no identity and no security header, as spire-agent's: it
// tells which services are served and what their messages look like, which are
// published, and nothing of this agent. It is 0.2 MB of the binary; what a caller
// can make it hold is bounded as all else is.
func RegisterEndpoint(server *grpc.Server, health *Health) {
	healthpb.RegisterHealthServer(server, health)
	reflection.Register(server)
}
