package workloadapi

import (
	"slices"
	"testing"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionpbalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
)

// Tools such as grpcurl find their way, by either version of reflection, and through the agent's codec.
func TestReflection(t *testing.T) {
	onSocket(t, "", Config{}, func(t *testing.T, cc *grpc.ClientConn, s *svc) {
		stream, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ask := func(req *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
			t.Helper()
			if err := stream.Send(req); err != nil {
				t.Fatal(err)
			}
			resp, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		var names []string
		list := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
		for _, s := range list.GetListServicesResponse().GetService() {
			names = append(names, s.Name)
		}
		want := []string{"SpiffeWorkloadAPI", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
		if !slices.Equal(names, want) {
			t.Errorf("services %q", names)
		}
		file := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "SpiffeWorkloadAPI"}})
		if len(file.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("file: %v", file)
		}
		old, err := reflectionpbalpha.NewServerReflectionClient(cc).ServerReflectionInfo(t.Context())
		if err == nil {
			//lint:ignore SA1019 spire-agent has it, and older clients know nothing else
			err = old.Send(&reflectionpbalpha.ServerReflectionRequest{MessageRequest: &reflectionpbalpha.ServerReflectionRequest_ListServices{}})
		}
		if err == nil {
			_, err = old.Recv()
		}
		if err != nil {
			t.Errorf("v1alpha: %v", err)
		}
		resp, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || resp.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health: %v, %v", resp, err)
		}
	})
}
